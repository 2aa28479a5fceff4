//! Calls on a sandbox, as its driver receives them.

use pool_api::{
    EnterError, Epoch, IfPaused, PauseCause, PauseError, ResumeError, RollbackError, SandboxState,
    SnapshotScope, TakenSnapshot,
};
use snapshotter::Pin;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Driver,
    replies::{CaptureRejected, Pending},
};
use crate::{
    lease::PoolLease,
    lifecycle::{Input, WakeSource},
};

/// A call on a sandbox.
#[derive(Debug)]
pub(crate) enum Command {
    /// A request needs the sandbox.
    Enter {
        if_paused: IfPaused,
        asked: Instant,
        reply: oneshot::Sender<Result<PoolLease, EnterError>>,
    },
    /// Its owner wakes it.
    Resume {
        scope: SnapshotScope,
        asked: Instant,
        reply: oneshot::Sender<Result<PoolLease, ResumeError>>,
    },
    /// Its owner rolls it back to a snapshot of its own.
    Rollback {
        target: WakeSource<Pin>,
        asked: Instant,
        reply: oneshot::Sender<Result<PoolLease, RollbackError>>,
    },
    Pause {
        epoch: Option<Epoch>,
        scope: SnapshotScope,
        cause: PauseCause,
        reply: oneshot::Sender<Result<TakenSnapshot, PauseError>>,
    },
    /// Pauses it unless a lease is out.
    PauseIfIdle {
        reply: oneshot::Sender<Result<TakenSnapshot, PauseError>>,
    },
    Kill {
        reply: oneshot::Sender<()>,
    },
    /// A live capture.
    Capture {
        scope: SnapshotScope,
        reply: oneshot::Sender<Result<Pin, CaptureRejected>>,
    },
    /// Ends the driver; the machine, if there is one, is killed.
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

impl Driver {
    /// Turns a call into an input of the lifecycle.
    pub(super) async fn command(&mut self, command: Command) {
        let Some(command) = self.refuse_early(command) else {
            return;
        };
        let replies = &mut self.replies;
        let input = match command {
            Command::Enter {
                if_paused,
                asked,
                reply,
            } => Input::Enter {
                waiter: replies.add(Pending::Enter { asked, reply }),
                if_paused,
            },
            Command::Resume {
                scope,
                asked,
                reply,
            } => Input::Resume {
                waiter: replies.add(Pending::Resume { asked, reply }),
                scope,
            },
            Command::Rollback {
                target,
                asked,
                reply,
            } => Input::Rollback {
                waiter: replies.add(Pending::Rollback { asked, reply }),
                target,
            },
            Command::Pause {
                epoch,
                scope,
                cause,
                reply,
            } => Input::Pause {
                waiter: replies.add(Pending::Pause(reply)),
                epoch,
                scope,
                cause,
            },
            Command::PauseIfIdle { reply } => Input::Pause {
                waiter: replies.add(Pending::Pause(reply)),
                epoch: None,
                scope: SnapshotScope::Full,
                cause: PauseCause::Idle,
            },
            Command::Capture { scope, reply } => Input::Capture {
                waiter: replies.add(Pending::Capture(reply)),
                scope,
            },
            Command::Kill { reply } => Input::Kill(replies.add(Pending::Kill(reply))),
            Command::Shutdown { reply } => {
                self.shutdown = Some(reply);
                return;
            }
        };
        self.apply(input).await;
    }

    /// Replies to calls that the clock or the gate refuses, and returns the others. A wake that a request asks for waits
    /// for the end of its back-off; one that the owner asks for does not.
    fn refuse_early(&mut self, command: Command) -> Option<Command> {
        let id = self.spec.id.clone();
        let state = self.lifecycle.state();
        match command {
            Command::Enter {
                if_paused: IfPaused::Wake,
                reply,
                asked,
            } if state == SandboxState::Paused => {
                let Some(retry_after_secs) = self.wake_backoff.remaining_secs(Instant::now())
                else {
                    return Some(Command::Enter {
                        if_paused: IfPaused::Wake,
                        asked,
                        reply,
                    });
                };
                // The caller may have left.
                let _received = reply.send(Err(EnterError::Backoff {
                    id,
                    retry_after_secs,
                }));
                None
            }
            Command::PauseIfIdle { reply }
                if !(self.lifecycle.may_idle() && self.gate.shut_if_idle()) =>
            {
                // The caller may have left.
                let _received = reply.send(Err(PauseError::Conflict { id, state }));
                None
            }
            command => Some(command),
        }
    }
}
