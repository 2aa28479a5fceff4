//! Failures of the operations on a host.

use std::time::SystemTime;

use crate::{Epoch, SandboxId, SandboxState, SnapshotId, SnapshotScope, TemplateName};

/// A cause for logs and operators; callers decide by the variant.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The part that made a start fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedPart {
    /// The host: its kernel, its disk or a program of Catnap.
    Host,
    /// The guest or its agent, which did not answer as it should.
    Guest,
    /// The snapshot it starts from: a file is missing or damaged.
    Snapshot,
}

/// Failure of [`crate::Node::rollback`].
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// The sandbox is unknown or stopped.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// The snapshot is not retained, or belongs to another sandbox.
    #[error("sandbox {id} has no snapshot {snapshot}")]
    NoSnapshot {
        /// The sandbox.
        id: SandboxId,
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The sandbox is in a state that does not allow this.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// The sandbox.
        id: SandboxId,
        /// Its state.
        state: SandboxState,
    },
    /// The restore failed; the sandbox is paused.
    #[error("failed to roll back sandbox {id}")]
    Failed {
        /// The sandbox.
        id: SandboxId,
        /// The part that failed.
        part: FailedPart,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// Failure of [`crate::Node::release_snapshot`].
#[derive(Debug, thiserror::Error)]
#[error("failed to release snapshot {id}")]
pub struct ReleaseError {
    /// The snapshot.
    pub id: SnapshotId,
    /// The cause.
    #[source]
    pub source: Cause,
}

/// Failure of [`crate::Node::create`].
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Another sandbox has this id.
    #[error("sandbox {0} already exists")]
    Exists(SandboxId),
    /// The origin does not exist.
    #[error("template '{0}' not found")]
    NoTemplate(String),
    /// The host has no room.
    #[error("no room on this host: {diagnostic}")]
    NoRoom {
        /// The resource that is short, for people.
        diagnostic: String,
    },
    /// The host's disk has less free space than its reserve.
    #[error("no disk space on this host: {diagnostic}")]
    NoDiskSpace {
        /// The free space and the reserve, for people.
        diagnostic: String,
    },
    /// The start failed.
    #[error("failed to start sandbox {id}")]
    Failed {
        /// The sandbox.
        id: SandboxId,
        /// The part that failed.
        part: FailedPart,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// Failure of [`crate::Node::enter`].
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The sandbox is unknown or stopped.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// The sandbox is paused or pausing, and this caller may not wake it or its snapshot is disk-only.
    #[error("sandbox {0} is paused")]
    Paused(SandboxId),
    /// The sandbox is being killed.
    #[error("sandbox {id} is {state:?}")]
    Transitioning {
        /// The sandbox.
        id: SandboxId,
        /// Its state.
        state: SandboxState,
    },
    /// The host has no room.
    #[error("no room on this host: {diagnostic}")]
    NoRoom {
        /// The resource that is short, for people.
        diagnostic: String,
    },
    /// An earlier wake failed, and the next attempt is not due yet.
    #[error(
        "the last wake of sandbox {id} failed; the next attempt is possible in {retry_after_secs} s"
    )]
    Backoff {
        /// The sandbox.
        id: SandboxId,
        /// The seconds until the next attempt, rounded up.
        retry_after_secs: u32,
    },
    /// The wake failed; the sandbox stays paused.
    #[error("failed to wake sandbox {id}")]
    Failed {
        /// The sandbox.
        id: SandboxId,
        /// The part that failed.
        part: FailedPart,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// Failure of [`crate::Node::pause`].
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// The sandbox is unknown or stopped.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// The sandbox is paused already.
    #[error("sandbox {id} is already paused")]
    AlreadyPaused {
        /// The sandbox.
        id: SandboxId,
        /// The epoch in which it is paused.
        epoch: Epoch,
        /// The time of the pause.
        since: SystemTime,
        /// The scope of the snapshot it wakes from.
        scope: SnapshotScope,
    },
    /// The sandbox is starting or stopping, or the epoch is stale.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// The sandbox.
        id: SandboxId,
        /// Its state.
        state: SandboxState,
    },
    /// The snapshot failed; the sandbox keeps running.
    #[error("failed to pause sandbox {id}")]
    Failed {
        /// The sandbox.
        id: SandboxId,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// Failure of [`crate::Node::resume`].
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The sandbox runs already.
    #[error("sandbox {0} is already running")]
    AlreadyRunning(SandboxId),
    /// The wake failed.
    #[error(transparent)]
    Enter(#[from] EnterError),
}

/// Failure of [`crate::Node::fork`] before any child starts.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The sandbox is unknown or stopped.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// The sandbox is paused; only a running one can be forked.
    #[error("sandbox {0} is paused and cannot be forked; resume it first")]
    Paused(SandboxId),
    /// The sandbox is in a state that does not allow this.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// The sandbox.
        id: SandboxId,
        /// Its state.
        state: SandboxState,
    },
    /// The capture failed; the sandbox keeps running.
    #[error("failed to fork sandbox {id}")]
    Failed {
        /// The sandbox.
        id: SandboxId,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// Failure of [`crate::Node::snapshot`].
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The sandbox is unknown or stopped.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// The sandbox is in a state that does not allow this.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// The sandbox.
        id: SandboxId,
        /// Its state.
        state: SandboxState,
    },
    /// The capture failed; the sandbox keeps running.
    #[error("failed to take a snapshot of sandbox {id}")]
    Failed {
        /// The sandbox.
        id: SandboxId,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// Failure of [`crate::Node::kill`].
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// The sandbox is unknown or stopped.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
}

/// Failure of [`crate::Node::build_template`].
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The kernel or the root disk is missing.
    #[error("template '{name}' has no kernel and root disk on this host")]
    NoArtefacts {
        /// The template.
        name: TemplateName,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The guest did not become ready.
    #[error("failed to build template '{name}'")]
    Failed {
        /// The template.
        name: TemplateName,
        /// The cause.
        #[source]
        source: Cause,
    },
}
