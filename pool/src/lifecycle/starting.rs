//! `Starting`: a machine is made, or resumes after a pause.

use pool_api::{PauseCause, StartCause, StopReason};

use super::{Change, Effect, Input, Lifecycle, Loss, Phase, Reply, Waiter, reply};

/// A start in progress.
#[derive(Debug)]
pub(super) struct Launch {
    cause: StartCause,
    machine: Machine,
    pub(super) wakers: Vec<Waiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    New,
    Resumed,
}

impl Launch {
    pub(super) fn of_new_machine(cause: StartCause, wakers: Vec<Waiter>) -> Self {
        let machine = Machine::New;
        Self {
            cause,
            machine,
            wakers,
        }
    }

    pub(super) fn of_resumed_machine(cause: StartCause, wakers: Vec<Waiter>) -> Self {
        let machine = Machine::Resumed;
        Self {
            cause,
            machine,
            wakers,
        }
    }

    fn loss(&self) -> Loss {
        match self.machine {
            Machine::Resumed => Loss::CRASH,
            Machine::New => Loss {
                cause: PauseCause::StartFailed,
                reason: StopReason::StartFailed,
            },
        }
    }
}

impl<S: Clone> Lifecycle<S> {
    pub(super) fn step_starting(&mut self, mut launch: Launch, input: Input<S>) -> Vec<Effect<S>> {
        match input {
            Input::Enter { waiter, .. } | Input::Resume { waiter, .. } => {
                launch.wakers.push(waiter);
            }
            Input::Kill(waiter) => {
                return self.stop_machine(waiter, launch.wakers, Vec::new());
            }
            Input::Started => {
                self.phase = Phase::Running(None);
                let mut effects = vec![Effect::OpenGate];
                effects.extend(reply(launch.wakers, Reply::Running));
                effects.push(Effect::Notify(Change::Started(launch.cause)));
                return effects;
            }
            Input::StartFailed | Input::TaskPanicked => {
                let loss = launch.loss();
                return self.lose_machine(loss, reply(launch.wakers, Reply::StartFailed));
            }
            other => {
                self.phase = Phase::Starting(launch);
                return self.conflict(other.waiter());
            }
        }
        self.phase = Phase::Starting(launch);
        Vec::new()
    }
}
