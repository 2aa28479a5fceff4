//! `Paused`: the sandbox is a snapshot.

use pool_api::{IfPaused, SnapshotScope, StartCause, StopReason};

use super::{
    Effect, Input, Lifecycle, Phase, Reply, Waiter, WakeSource, reply, starting::PendingStart,
};

impl<S: Clone> Lifecycle<S> {
    pub(super) fn step_paused(&mut self, input: Input<S>) -> Vec<Effect<S>> {
        self.phase = Phase::Paused;
        let Some(source) = self.source.clone() else {
            // No constructor or transition leads here.
            return self.conflict(input.waiter());
        };
        match input {
            Input::Enter { waiter, if_paused } => match (if_paused, source.scope) {
                (IfPaused::Wake, SnapshotScope::Full) => {
                    self.wake(source, SnapshotScope::Full, waiter)
                }
                _ => reply([waiter], Reply::NotWoken),
            },
            Input::Resume { waiter, scope } => self.wake(source, scope, waiter),
            Input::Pause { waiter, epoch, .. } => {
                if self.is_stale(epoch) {
                    return self.conflict(Some(waiter));
                }
                reply([waiter], Reply::AlreadyPaused)
            }
            Input::Capture { waiter, .. } => reply([waiter], Reply::PausedAt(source)),
            Input::Rollback { waiter, target } => vec![Effect::RecordRollback { waiter, target }],
            Input::RollbackRecorded { waiter, target } => {
                let pending = PendingStart::of_new_machine(StartCause::RolledBack, vec![waiter]);
                let start = self.start_from(target, SnapshotScope::Full, pending);
                vec![start, Effect::CollectGarbage]
            }
            Input::RollbackNotRecorded(waiter) => reply([waiter], Reply::StartFailed),
            Input::Kill(waiter) => self.stop(StopReason::Killed, vec![waiter]),
            _ => Vec::new(),
        }
    }

    fn wake(
        &mut self,
        source: WakeSource<S>,
        scope: SnapshotScope,
        waiter: Waiter,
    ) -> Vec<Effect<S>> {
        let pending = PendingStart::of_new_machine(StartCause::Woken, vec![waiter]);
        vec![self.start_from(source, scope, pending)]
    }
}
