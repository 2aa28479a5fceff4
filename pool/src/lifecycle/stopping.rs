//! `Stopping` and the way to `Stopped`.

use pool_api::{SandboxState, StopReason};

use super::{Effect, Input, Lifecycle, Phase, Reply, StateChange, Waiter, reply};

impl<S: Clone> Lifecycle<S> {
    pub(super) fn step_stopping(
        &mut self,
        mut killers: Vec<Waiter>,
        input: Input<S>,
    ) -> Vec<Effect<S>> {
        match input {
            Input::TasksEnded => self.stop(StopReason::Killed, killers),
            Input::Kill(waiter) => {
                killers.push(waiter);
                self.phase = Phase::Stopping { killers };
                Vec::new()
            }
            // The start completed before its cancellation.
            Input::Started => {
                self.phase = Phase::Stopping { killers };
                vec![Effect::Release]
            }
            other => {
                self.phase = Phase::Stopping { killers };
                self.conflict(other.waiter())
            }
        }
    }

    /// Destroys the machine for `killer`; other waiters get a conflict.
    pub(super) fn stop_machine(
        &mut self,
        killer: Waiter,
        wakers: Vec<Waiter>,
        others: Vec<Waiter>,
    ) -> Vec<Effect<S>> {
        self.phase = Phase::Stopping {
            killers: vec![killer],
        };
        let conflict = Reply::Conflict(SandboxState::Stopping);
        let mut effects = reply(wakers.into_iter().chain(others), conflict);
        effects.push(Effect::Destroy);
        effects
    }

    pub(super) fn stop(&mut self, reason: StopReason, killers: Vec<Waiter>) -> Vec<Effect<S>> {
        self.phase = Phase::Stopped(reason);
        self.source = None;
        let mut effects = vec![Effect::Remove];
        effects.extend(reply(killers, Reply::Gone));
        effects.push(Effect::Notify(StateChange::Stopped(reason)));
        effects
    }
}
