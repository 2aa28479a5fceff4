//! `Running`: the sandbox has a machine and admits callers.

use pool_api::{PauseCause, SnapshotScope, StartCause};

use super::{
    Effect, Input, Lifecycle, MachineLoss, MachineState, Phase, Reply, Waiter, WakeSource,
    pausing::Pause, reply, starting::PendingStart,
};

/// A live capture in progress.
#[derive(Debug)]
pub(super) struct Capture<S> {
    waiter: Waiter,
    scope: SnapshotScope,
    machine: MachineState,
    /// Inputs to replay once it has ended, in order of arrival.
    deferred: Vec<Input<S>>,
}

impl<S> Capture<S> {
    pub(super) fn machine_is_alive(&self) -> bool {
        self.machine == MachineState::Alive
    }
}

impl<S: Clone> Lifecycle<S> {
    pub(super) fn step_running(
        &mut self,
        capture: Option<Capture<S>>,
        input: Input<S>,
    ) -> Vec<Effect<S>> {
        match input {
            Input::Enter { waiter, .. } => self.keep_running(capture, waiter, Reply::Running),
            Input::Resume { waiter, .. } => {
                self.keep_running(capture, waiter, Reply::AlreadyRunning)
            }
            Input::Kill(waiter) => {
                let mut effects = vec![Effect::ShutGate];
                effects.extend(self.stop_machine(waiter, Vec::new(), interrupted(capture)));
                effects
            }
            Input::Exited | Input::TaskPanicked => self.lose_running_machine(capture),
            input => match capture {
                Some(capture) => self.step_capturing(capture, input),
                None => self.step_undisturbed(input),
            },
        }
    }

    /// Steps while no capture is in progress.
    fn step_undisturbed(&mut self, input: Input<S>) -> Vec<Effect<S>> {
        self.phase = Phase::Running(None);
        match input {
            Input::Damaged => self.lose_running_machine(None),
            Input::Idle => {
                self.begin_pause(Pause::new(SnapshotScope::Full, PauseCause::Idle, None))
            }
            Input::Pause {
                waiter,
                epoch,
                scope,
                cause,
            } => {
                if self.is_stale(epoch) {
                    return self.conflict(Some(waiter));
                }
                self.begin_pause(Pause::new(scope, cause, Some(waiter)))
            }
            Input::Capture { waiter, scope } => {
                self.phase = Phase::Running(Some(Capture {
                    waiter,
                    scope,
                    machine: MachineState::Alive,
                    deferred: Vec::new(),
                }));
                vec![Effect::Capture { scope }]
            }
            Input::Rollback { waiter, target } => vec![Effect::RecordRollback { waiter, target }],
            Input::RollbackRecorded { waiter, target } => {
                let pending = PendingStart::of_new_machine(StartCause::RolledBack, vec![waiter]);
                let start = self.start_from(target, SnapshotScope::Full, pending);
                vec![
                    Effect::ShutGate,
                    Effect::Release,
                    start,
                    Effect::CollectGarbage,
                ]
            }
            Input::RollbackNotRecorded(waiter) => reply([waiter], Reply::StartFailed),
            _ => Vec::new(),
        }
    }

    /// Steps while a capture is in progress.
    fn step_capturing(&mut self, mut capture: Capture<S>, input: Input<S>) -> Vec<Effect<S>> {
        let outcome = match input {
            Input::Captured(snapshot) => {
                if capture.scope == SnapshotScope::Full {
                    self.source = Some(WakeSource {
                        snapshot: snapshot.clone(),
                        scope: SnapshotScope::Full,
                    });
                }
                Reply::Captured(snapshot)
            }
            Input::CaptureFailed => Reply::CaptureFailed,
            // The capture uses the machine, and fails when it is killed.
            Input::Damaged if capture.machine_is_alive() => {
                capture.machine = MachineState::Ended;
                self.phase = Phase::Running(Some(capture));
                return vec![Effect::KillMachine];
            }
            Input::Pause { .. } | Input::Capture { .. } | Input::Rollback { .. } => {
                capture.deferred.push(input);
                self.phase = Phase::Running(Some(capture));
                return Vec::new();
            }
            input => {
                self.phase = Phase::Running(Some(capture));
                return self.conflict(input.waiter());
            }
        };
        let mut effects = reply([capture.waiter], outcome);
        if capture.machine_is_alive() {
            self.phase = Phase::Running(None);
            effects.push(Effect::CollectGarbage);
        } else {
            let replies = std::mem::replace(&mut effects, vec![Effect::ShutGate]);
            effects.extend(self.lose_machine(MachineLoss::CRASH, replies));
        }
        effects.push(Effect::Replay(capture.deferred));
        effects
    }

    fn keep_running(
        &mut self,
        capture: Option<Capture<S>>,
        waiter: Waiter,
        answer: Reply<S>,
    ) -> Vec<Effect<S>> {
        self.phase = Phase::Running(capture);
        reply([waiter], answer)
    }

    fn begin_pause(&mut self, pause: Pause) -> Vec<Effect<S>> {
        let scope = pause.scope();
        self.phase = Phase::Pausing(pause);
        vec![Effect::ShutGate, Effect::Snapshot { scope }]
    }

    fn lose_running_machine(&mut self, capture: Option<Capture<S>>) -> Vec<Effect<S>> {
        let mut effects = vec![Effect::ShutGate];
        let capturer = capture.as_ref().map(|capture| capture.waiter);
        effects
            .extend(self.lose_machine(MachineLoss::CRASH, reply(capturer, Reply::CaptureFailed)));
        effects.extend(capture.map(|capture| Effect::Replay(capture.deferred)));
        effects
    }
}

/// Lists the callers of a capture that ends with its sandbox.
fn interrupted<S>(capture: Option<Capture<S>>) -> Vec<Waiter> {
    let Some(capture) = capture else {
        return Vec::new();
    };
    let deferred = capture.deferred.iter().filter_map(Input::waiter);
    std::iter::once(capture.waiter).chain(deferred).collect()
}
