//! Calls on a sandbox, as its driver receives them.

use pool_api::{
    EnterError, Epoch, IfPaused, PauseCause, PauseError, ResumeError, RollbackError, SnapshotScope,
    TakenSnapshot,
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
}
