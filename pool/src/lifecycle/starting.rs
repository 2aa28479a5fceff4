//! `Starting`: a machine is made, or resumes after a pause.

use pool_api::{PauseCause, StartCause, StopReason};

use super::{
    Effect, Input, Lifecycle, MachineLoss, MachineState, Phase, Reply, StateChange, Waiter, reply,
};

/// A start in progress.
#[derive(Debug)]
pub(super) struct PendingStart {
    cause: StartCause,
    machine: MachineOrigin,
    pub(super) wakers: Vec<Waiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MachineOrigin {
    New,
    Resumed(MachineState),
}

impl PendingStart {
    pub(super) fn of_new_machine(cause: StartCause, wakers: Vec<Waiter>) -> Self {
        let machine = MachineOrigin::New;
        Self {
            cause,
            machine,
            wakers,
        }
    }

    pub(super) fn of_resumed_machine(cause: StartCause, wakers: Vec<Waiter>) -> Self {
        let machine = MachineOrigin::Resumed(MachineState::Alive);
        Self {
            cause,
            machine,
            wakers,
        }
    }

    /// Returns whether a live machine resumes.
    pub(super) fn resumes(&self) -> bool {
        self.machine == MachineOrigin::Resumed(MachineState::Alive)
    }

    fn loss(&self) -> MachineLoss {
        match self.machine {
            MachineOrigin::Resumed(_) => MachineLoss::CRASH,
            MachineOrigin::New => MachineLoss {
                cause: PauseCause::StartFailed,
                reason: StopReason::StartFailed,
            },
        }
    }
}

impl<S: Clone> Lifecycle<S> {
    pub(super) fn step_starting(
        &mut self,
        mut start: PendingStart,
        input: Input<S>,
    ) -> Vec<Effect<S>> {
        match input {
            Input::Enter { waiter, .. } | Input::Resume { waiter, .. } => {
                start.wakers.push(waiter);
            }
            Input::Kill(waiter) => {
                return self.stop_machine(waiter, start.wakers, Vec::new());
            }
            // The resume of a killed machine fails.
            Input::Damaged if start.resumes() => {
                start.machine = MachineOrigin::Resumed(MachineState::Ended);
                self.phase = Phase::Starting(start);
                return vec![Effect::KillMachine];
            }
            Input::Started => {
                self.phase = Phase::Running(None);
                let mut effects = vec![Effect::OpenGate];
                effects.extend(reply(start.wakers, Reply::Running));
                effects.push(Effect::Notify(StateChange::Started(start.cause)));
                return effects;
            }
            Input::StartFailed | Input::TaskPanicked => {
                let loss = start.loss();
                return self.lose_machine(loss, reply(start.wakers, Reply::StartFailed));
            }
            other => {
                self.phase = Phase::Starting(start);
                return self.conflict(other.waiter());
            }
        }
        self.phase = Phase::Starting(start);
        Vec::new()
    }
}
