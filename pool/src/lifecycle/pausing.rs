//! `Pausing`: the machine is stopped and its snapshot is taken.

use pool_api::{IfPaused, PauseCause, SnapshotScope, StartCause};

use super::{
    Effect, Input, Lifecycle, MachineLoss, MachineState, Phase, Reply, StateChange, Waiter,
    WakeSource, reply, starting::PendingStart,
};

/// A pause in progress.
#[derive(Debug)]
pub(super) struct Pause {
    scope: SnapshotScope,
    cause: PauseCause,
    machine: MachineState,
    pausers: Vec<Waiter>,
    wakers: Vec<Waiter>,
    /// The scope that the first waker asked for.
    wake_scope: SnapshotScope,
}

impl Pause {
    pub(super) fn new(scope: SnapshotScope, cause: PauseCause, pauser: Option<Waiter>) -> Self {
        Self {
            scope,
            cause,
            machine: MachineState::Alive,
            pausers: pauser.into_iter().collect(),
            wakers: Vec::new(),
            wake_scope: SnapshotScope::Full,
        }
    }

    pub(super) fn scope(&self) -> SnapshotScope {
        self.scope
    }

    pub(super) fn machine_is_alive(&self) -> bool {
        self.machine == MachineState::Alive
    }

    fn add_waker(&mut self, waiter: Waiter, scope: SnapshotScope) {
        if self.wakers.is_empty() {
            self.wake_scope = scope;
        }
        self.wakers.push(waiter);
    }

    /// Returns whether the stopped machine resumes for the wakers, rather than being replaced.
    fn resumes_machine(&self) -> bool {
        self.machine_is_alive()
            && self.scope == SnapshotScope::Full
            && self.wake_scope == SnapshotScope::Full
    }
}

impl<S: Clone> Lifecycle<S> {
    pub(super) fn step_pausing(&mut self, mut pause: Pause, input: Input<S>) -> Vec<Effect<S>> {
        let mut effects = Vec::new();
        match input {
            Input::Enter { waiter, if_paused } => {
                if if_paused == IfPaused::Wake && pause.scope == SnapshotScope::Full {
                    pause.add_waker(waiter, SnapshotScope::Full);
                } else {
                    effects = reply([waiter], Reply::NotWoken);
                }
            }
            Input::Resume { waiter, scope } => pause.add_waker(waiter, scope),
            Input::Pause { waiter, epoch, .. } if !self.is_stale(epoch) => {
                pause.pausers.push(waiter);
            }
            Input::Exited => pause.machine = MachineState::Ended,
            Input::Damaged => {
                pause.machine = MachineState::Ended;
                effects.push(Effect::KillMachine);
            }
            Input::Kill(waiter) => return self.stop_machine(waiter, pause.wakers, pause.pausers),
            Input::Snapshotted(snapshot) => return self.complete_pause(pause, snapshot),
            Input::SnapshotFailed if pause.machine_is_alive() => {
                let pending =
                    PendingStart::of_resumed_machine(StartCause::PauseFailed, pause.wakers);
                self.phase = Phase::Starting(pending);
                effects = reply(pause.pausers, Reply::SnapshotFailed);
                effects.push(Effect::Resume { after: pause.scope });
                return effects;
            }
            Input::SnapshotFailed | Input::TaskPanicked => {
                let mut replies = reply(pause.wakers, Reply::StartFailed);
                replies.extend(reply(pause.pausers, Reply::SnapshotFailed));
                return self.lose_machine(MachineLoss::CRASH, replies);
            }
            other => {
                self.phase = Phase::Pausing(pause);
                return self.conflict(other.waiter());
            }
        }
        self.phase = Phase::Pausing(pause);
        effects
    }

    fn complete_pause(&mut self, pause: Pause, snapshot: S) -> Vec<Effect<S>> {
        let source = WakeSource {
            snapshot,
            scope: pause.scope,
        };
        let resumes = pause.resumes_machine();
        let mut effects = reply(pause.pausers, Reply::Paused);
        if pause.wakers.is_empty() {
            let (scope, cause) = (source.scope, pause.cause);
            self.phase = Phase::Paused;
            self.source = Some(source);
            effects.extend([Effect::Release, Effect::CollectGarbage]);
            effects.push(Effect::Notify(StateChange::Paused { scope, cause }));
        } else if resumes {
            self.epoch = self.epoch.next();
            self.source = Some(source);
            let pending = PendingStart::of_resumed_machine(StartCause::Woken, pause.wakers);
            self.phase = Phase::Starting(pending);
            effects.push(Effect::Resume { after: pause.scope });
            effects.push(Effect::CollectGarbage);
        } else {
            let pending = PendingStart::of_new_machine(StartCause::Woken, pause.wakers);
            effects.push(Effect::Release);
            effects.push(self.start_from(source, pause.wake_scope, pending));
            effects.push(Effect::CollectGarbage);
        }
        effects
    }
}
