//! How fake sandboxes grant leases and wake.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    FakeNode, WakeScript,
    counter::Counted,
    lock,
    sandbox::{Connections, Sandbox},
    scripted,
};
use crate::{
    EnterError, EventKind, FailedPart, PauseCause, SandboxId, SandboxState, SnapshotScope, Start,
    StartCause, WakeReport,
};

/// The right of a caller to wake a paused sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A request that may not wake.
    Passive,
    /// A request that may wake a sandbox with memory.
    Request,
    /// The API, which may wake any sandbox, from this scope of its snapshot.
    Owner(SnapshotScope),
}

impl Caller {
    fn may_wake(self, scope: SnapshotScope) -> bool {
        match self {
            Self::Passive => false,
            Self::Request => scope == SnapshotScope::Full,
            Self::Owner(_) => true,
        }
    }

    fn start(self, scope: SnapshotScope) -> Start {
        if scope == SnapshotScope::DiskOnly || self == Self::Owner(SnapshotScope::DiskOnly) {
            Start::Boot
        } else {
            Start::Restore
        }
    }
}

/// A running sandbox, and the report of the wake that the caller waited for.
pub(super) struct Entered {
    pub(super) sandbox: Arc<watch::Sender<Sandbox>>,
    pub(super) wake: Option<WakeReport>,
}

/// The next action of an entering caller.
enum Step {
    Granted,
    Refused(EnterError),
    Wake(Start),
    Await(SandboxState),
}

impl FakeNode {
    /// Returns once the sandbox runs, waking it if it is paused and `caller` may.
    pub(super) async fn grant(
        &self,
        id: &SandboxId,
        caller: Caller,
    ) -> Result<Entered, EnterError> {
        let _entering = Counted::new(&self.0.entering);
        let mut waited = false;
        loop {
            let not_found = || EnterError::NotFound(id.clone());
            let sandbox = self.find(id).ok_or_else(not_found)?;
            let mut step = Step::Granted;
            sandbox.send_if_modified(|sandbox| {
                step = next_step(sandbox, caller);
                !matches!(step, Step::Granted | Step::Refused(_))
            });
            match step {
                Step::Granted => {
                    let wake = waited.then(|| sandbox.borrow().report());
                    return Ok(Entered { sandbox, wake });
                }
                Step::Refused(error) => return Err(error),
                Step::Wake(start) => {
                    // The wake continues when its first caller leaves: others may wait for it.
                    let (node, id, sender) = (self.clone(), id.clone(), sandbox.clone());
                    let wake =
                        async move { node.wake(&id, &sender, start, StartCause::Woken).await };
                    match tokio::spawn(wake).await {
                        Ok(outcome) => outcome?,
                        Err(error) => {
                            let id = sandbox.borrow().info.id.clone();
                            return Err(EnterError::Failed {
                                id,
                                part: FailedPart::Host,
                                source: error.into(),
                            });
                        }
                    }
                }
                Step::Await(state) => {
                    let mut changes = sandbox.subscribe();
                    let left = changes
                        .wait_for(|sandbox| sandbox.info.state != state)
                        .await;
                    let now = left.map_err(|_| not_found())?.info.state;
                    if state == SandboxState::Starting && now == SandboxState::Paused {
                        return Err(scripted_failure(id));
                    }
                }
            }
            waited = true;
        }
    }

    /// Completes a start that `hold_wakes` does not hold.
    pub(super) async fn wake(
        &self,
        id: &SandboxId,
        sandbox: &watch::Sender<Sandbox>,
        start: Start,
        cause: StartCause,
    ) -> Result<(), EnterError> {
        self.0.wakes.send_modify(|wakes| *wakes += 1);
        // The sender lives as long as this host.
        drop(self.0.hold_wakes.subscribe().wait_for(|hold| !hold).await);
        let script = lock(&self.0.script).next_wake.take();
        if let Some(script) = script {
            sandbox.send_modify(|sandbox| {
                sandbox.info.last_error = Some("scripted".to_owned());
                sandbox.end_epoch(SandboxState::Paused, Connections::Close);
            });
            let scope = sandbox.borrow().info.scope;
            let cause = PauseCause::StartFailed;
            self.notify(&sandbox.borrow().info, EventKind::Paused { scope, cause });
            return Err(match script {
                WakeScript::NoRoom => EnterError::NoRoom {
                    diagnostic: "memory".to_owned(),
                },
                WakeScript::Fails => scripted_failure(id),
            });
        }
        sandbox.send_modify(|sandbox| {
            sandbox.info.last_error = None;
            sandbox.start_epoch(start);
        });
        self.notify_started(&sandbox.borrow(), cause);
        Ok(())
    }
}

fn next_step(sandbox: &mut Sandbox, caller: Caller) -> Step {
    let id = sandbox.info.id.clone();
    match sandbox.info.state {
        SandboxState::Running => Step::Granted,
        SandboxState::Paused if caller.may_wake(sandbox.info.scope) => {
            let start = caller.start(sandbox.info.scope);
            sandbox.enter_state(SandboxState::Starting);
            Step::Wake(start)
        }
        SandboxState::Pausing => match &mut sandbox.pause {
            Some(pause) if caller.may_wake(pause.scope) => {
                // A disk-only pause ends the machine; its sandbox boots after it.
                if pause.scope == SnapshotScope::Full
                    && caller != Caller::Owner(SnapshotScope::DiskOnly)
                {
                    pause.wakers += 1;
                }
                Step::Await(SandboxState::Pausing)
            }
            None if caller.may_wake(sandbox.info.scope) => Step::Await(SandboxState::Pausing),
            _ => Step::Refused(EnterError::Paused(id)),
        },
        SandboxState::Paused => Step::Refused(EnterError::Paused(id)),
        SandboxState::Starting => Step::Await(SandboxState::Starting),
        state @ SandboxState::Stopping => Step::Refused(EnterError::Transitioning { id, state }),
        SandboxState::Stopped(_) => Step::Refused(EnterError::NotFound(id)),
    }
}

fn scripted_failure(id: &SandboxId) -> EnterError {
    EnterError::Failed {
        id: id.clone(),
        part: FailedPart::Host,
        source: scripted(),
    }
}
