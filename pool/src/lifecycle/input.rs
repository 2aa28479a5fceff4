//! The inputs of a lifecycle.

use pool_api::{Epoch, IfPaused, PauseCause, SnapshotScope};

use super::{Waiter, WakeSource};

/// A request or an event of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input<S> {
    /// A request needs the sandbox.
    Enter { waiter: Waiter, if_paused: IfPaused },
    /// Its owner wakes it, from this scope of its snapshot.
    Resume {
        waiter: Waiter,
        scope: SnapshotScope,
    },
    /// A caller pauses it. `epoch`: only in this epoch.
    Pause {
        waiter: Waiter,
        epoch: Option<Epoch>,
        scope: SnapshotScope,
        cause: PauseCause,
    },
    /// A caller wants a snapshot of it, and it keeps running.
    Capture {
        waiter: Waiter,
        scope: SnapshotScope,
    },
    /// A caller rolls it back.
    Rollback {
        waiter: Waiter,
        target: WakeSource<S>,
    },
    /// A caller kills it.
    Kill(Waiter),
    /// The idle window has passed and the gate is shut.
    Idle,
    /// The machine runs and the guest has its identity.
    Started,
    /// The machine could not be made, or could not resume.
    StartFailed,
    /// The machine ended by itself.
    Exited,
    /// A page of the machine's memory cannot be served.
    Damaged,
    /// The snapshot of a pause is durable.
    Snapshotted(S),
    /// The snapshot of a pause failed; the machine is stopped and unchanged.
    SnapshotFailed,
    /// The snapshot of a live capture is durable, and the machine resumed or was killed.
    Captured(S),
    /// A live capture failed, and the machine resumed or was killed.
    CaptureFailed,
    /// The target of a rollback is durable.
    RollbackRecorded {
        waiter: Waiter,
        target: WakeSource<S>,
    },
    /// The target of a rollback could not be recorded.
    RollbackNotRecorded(Waiter),
    /// A task of the sandbox panicked; its work is in an unknown state.
    TaskPanicked,
    /// No task of the sandbox is in progress.
    TasksEnded,
}

impl<S> Input<S> {
    /// Returns the caller that waits for this input's reply.
    pub(super) fn waiter(&self) -> Option<Waiter> {
        match self {
            Self::Enter { waiter, .. }
            | Self::Resume { waiter, .. }
            | Self::Pause { waiter, .. }
            | Self::Capture { waiter, .. }
            | Self::Rollback { waiter, .. }
            | Self::RollbackRecorded { waiter, .. }
            | Self::RollbackNotRecorded(waiter)
            | Self::Kill(waiter) => Some(*waiter),
            _ => None,
        }
    }
}
