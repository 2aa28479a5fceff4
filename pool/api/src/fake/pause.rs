//! How fake sandboxes pause.

use tokio::sync::watch;

use super::{
    FakeNode,
    counter::Counted,
    lock,
    sandbox::{Pause, PauseOutcome, Sandbox},
    scripted,
};
use crate::{
    Epoch, EventKind, PauseCause, PauseError, SandboxId, SandboxState, SnapshotScope, Start,
    StartCause, TakenSnapshot,
};

impl FakeNode {
    pub(super) async fn pause_sandbox(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, PauseError> {
        let _pausing = Counted::new(&self.0.pausing);
        let sandbox = self
            .find(id)
            .ok_or_else(|| PauseError::NotFound(id.clone()))?;
        let mut joined = None;
        sandbox.send_if_modified(|sandbox| {
            let was_running = sandbox.info.state == SandboxState::Running;
            let outcome = join(sandbox, epoch, scope);
            let begun = was_running && outcome.is_ok();
            joined = Some((outcome, begun));
            begun
        });
        let (outcome, begun) = joined.ok_or_else(|| PauseError::NotFound(id.clone()))?;
        let mut outcome = outcome?;
        if begun {
            // The pause continues when its first caller leaves: others may wait for it.
            let (node, id) = (self.clone(), id.clone());
            tokio::spawn(async move { node.complete_pause(&id).await });
        }
        let ended = outcome.wait_for(Option::is_some).await;
        match ended.ok().and_then(|outcome| outcome.clone()) {
            Some(PauseOutcome::Taken(taken)) => Ok(taken),
            Some(PauseOutcome::Failed) => Err(PauseError::Failed {
                id: id.clone(),
                source: scripted(),
            }),
            // A kill drops the pause.
            None => Err(PauseError::Conflict {
                id: id.clone(),
                state: SandboxState::Stopping,
            }),
        }
    }

    async fn complete_pause(&self, id: &SandboxId) {
        // The sender lives as long as this host.
        drop(self.0.hold_pauses.subscribe().wait_for(|hold| !hold).await);
        let Some(sandbox) = self.find(id) else { return };
        let fails = self.capture_fails(|script| script.pause_fails);
        let connections = self.connections_after_pause();
        let mut ended = None;
        sandbox.send_modify(|sandbox| {
            let Some(pause) = sandbox.pause.take() else {
                return;
            };
            let taken = (!fails)
                .then(|| lock(&self.0.snapshots).take(id, pause.scope))
                .flatten();
            let (kind, outcome) = match taken {
                Some(taken) => {
                    sandbox.info.last_error = None;
                    sandbox.info.snapshot = Some(taken.id.clone());
                    sandbox.info.scope = taken.scope;
                    sandbox.end_epoch(SandboxState::Paused, connections);
                    if pause.wakers > 0 {
                        sandbox.start_epoch(Start::Unpause);
                    }
                    (
                        started_or_paused(sandbox, taken.scope),
                        PauseOutcome::Taken(taken),
                    )
                }
                None => {
                    sandbox.info.last_error = Some("scripted".to_owned());
                    sandbox.start = Start::Unpause;
                    sandbox.run();
                    let report = sandbox.report();
                    let cause = StartCause::PauseFailed;
                    (EventKind::Started { cause, report }, PauseOutcome::Failed)
                }
            };
            ended = Some((kind, pause.outcome, outcome));
        });
        if let Some((kind, callers, outcome)) = ended {
            self.notify(&sandbox.borrow().info, kind);
            callers.send_replace(Some(outcome));
        }
    }
}

/// Begins a pause, or joins the one in progress.
fn join(
    sandbox: &mut Sandbox,
    epoch: Epoch,
    scope: SnapshotScope,
) -> Result<watch::Receiver<Option<PauseOutcome>>, PauseError> {
    let (id, state) = (sandbox.info.id.clone(), sandbox.info.state);
    if sandbox.info.epoch != epoch {
        return Err(PauseError::Conflict { id, state });
    }
    match (state, &sandbox.pause) {
        (SandboxState::Running, _) => {
            let (outcome, receiver) = watch::channel(None);
            sandbox.pause = Some(Pause {
                scope,
                wakers: 0,
                outcome,
            });
            sandbox.revoke();
            sandbox.enter_state(SandboxState::Pausing);
            Ok(receiver)
        }
        (SandboxState::Pausing, Some(pause)) => Ok(pause.outcome.subscribe()),
        (SandboxState::Paused, _) => Err(PauseError::AlreadyPaused {
            id,
            epoch,
            since: sandbox.info.since,
            scope: sandbox.info.scope,
        }),
        _ => Err(PauseError::Conflict { id, state }),
    }
}

fn started_or_paused(sandbox: &Sandbox, scope: SnapshotScope) -> EventKind {
    match sandbox.info.state {
        SandboxState::Running => EventKind::Started {
            cause: StartCause::Woken,
            report: sandbox.report(),
        },
        _ => EventKind::Paused {
            scope,
            cause: PauseCause::Requested,
        },
    }
}
