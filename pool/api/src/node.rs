//! The boundary of a host.

use std::fmt;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::{
    Child, Epoch, Event, GuestMetrics, Keep, Lease, SandboxId, SandboxInfo, SandboxSpec,
    SandboxState, SnapshotId, TemplateInfo, TemplateName, Wake,
};

/// A cause that only logs and operators see.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A host that runs sandboxes. Every call that names an [`Epoch`] is refused when the sandbox lives a later life.
#[async_trait]
pub trait Node: fmt::Debug + Send + Sync {
    /// Makes a sandbox and returns when it is running.
    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo, CreateError>;

    /// Lets a caller in: at once when it runs, after a wake when it is paused and `wake` allows it. Many callers at one
    /// sleeping sandbox cause one wake.
    async fn enter(&self, id: &SandboxId, wake: Wake) -> Result<Box<dyn Lease>, EnterError>;

    /// Pauses a sandbox: revokes leases, captures what is to be kept, and returns when the snapshot is durable. Callers
    /// that ask while a pause is under way share its outcome, whatever they would have kept. A sandbox that keeps only
    /// its filesystem is woken by [`Node::resume`] alone, never by [`Node::enter`].
    async fn pause(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        keep: Keep,
    ) -> Result<SnapshotId, PauseError>;

    /// Wakes a paused sandbox and returns when it runs. `from` [`Keep::Filesystem`] boots it from its disk even when its
    /// snapshot has memory.
    async fn resume(&self, id: &SandboxId, from: Keep) -> Result<SandboxInfo, ResumeError>;

    /// Puts a sandbox, running or paused, back to a snapshot that was taken of it, and returns when it runs. It stays
    /// who it is; its connections are cut; what it did since is lost. When the snapshot cannot be restored the sandbox
    /// is paused in it.
    async fn rollback(
        &self,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SandboxInfo, RollbackError>;

    /// Captures a running sandbox, which goes on, and forks it once for each child; one outcome a child, in order.
    async fn fork(
        &self,
        origin: &SandboxId,
        children: Vec<Child>,
    ) -> Result<Vec<Result<SandboxInfo, CreateError>>, ForkError>;

    /// Captures a running sandbox, which goes on, or takes the snapshot of a paused one. The snapshot outlives the
    /// sandbox: it is kept until it is given up.
    async fn snapshot(&self, id: &SandboxId, keep: Keep) -> Result<SnapshotId, SnapshotError>;

    /// Gives up a snapshot that [`Node::snapshot`] made. Its files go when no sandbox needs them. Does nothing to one
    /// that is not kept.
    async fn give_up(&self, snapshot: &SnapshotId) -> Result<(), GiveUpError>;

    /// Every snapshot that [`Node::snapshot`] made and nobody gave up.
    async fn kept_snapshots(&self) -> Vec<SnapshotId>;

    /// What a running guest says of itself; `None` when it does not run or does not answer. Asking is no use of the
    /// sandbox: it neither wakes it nor keeps it awake.
    async fn metrics(&self, id: &SandboxId) -> Option<GuestMetrics>;

    /// Ends a sandbox and drops its snapshots. Returns when nothing of it is left.
    async fn kill(&self, id: &SandboxId) -> Result<(), KillError>;

    /// What is known of a sandbox; `None` when it is unknown or gone.
    async fn info(&self, id: &SandboxId) -> Option<SandboxInfo>;

    /// Every sandbox that is not gone.
    async fn list(&self) -> Vec<SandboxInfo>;

    /// The last `limit` bytes of the guest's console.
    async fn console(&self, id: &SandboxId, limit: usize) -> Option<Vec<u8>>;

    /// Every template.
    async fn templates(&self) -> Vec<TemplateInfo>;

    /// Boots a template from this host's guest artefacts and keeps the snapshot taken once it is ready. Returns at once
    /// when it is built already from the same artefacts.
    async fn build_template(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError>;

    /// What happens from now on. A receiver that lags must reconcile with [`Node::list`].
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// A sandbox that was not put back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// Unknown or gone.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// There is no such snapshot, or it is not one of this sandbox.
    #[error("sandbox {id} has no snapshot {snapshot}")]
    NoSnapshot {
        /// Which sandbox.
        id: SandboxId,
        /// Which snapshot.
        snapshot: SnapshotId,
    },
    /// It is between states.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// Which.
        id: SandboxId,
        /// Where it is.
        state: SandboxState,
    },
    /// It could not be restored, and is paused.
    #[error("roll sandbox {id} back")]
    Failed {
        /// Which.
        id: SandboxId,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A snapshot that was not given up.
#[derive(Debug, thiserror::Error)]
#[error("give up snapshot {id}")]
pub struct GiveUpError {
    /// Which.
    pub id: SnapshotId,
    /// Why.
    #[source]
    pub source: Cause,
}

/// A sandbox that was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Another sandbox has the name.
    #[error("a sandbox named {0} exists")]
    Exists(SandboxId),
    /// Nothing to start from.
    #[error("template '{0}' not found")]
    NoTemplate(String),
    /// The host is full.
    #[error("no room on this host: {diagnostic}")]
    NoRoom {
        /// What is short, for people.
        diagnostic: String,
    },
    /// It could not be started.
    #[error("start sandbox {id}")]
    Failed {
        /// Which.
        id: SandboxId,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A caller that was not let in.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Unknown or gone.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// It is paused, or about to be, and must not be woken by this, or keeps only its filesystem.
    #[error("sandbox {0} is paused")]
    Asleep(SandboxId),
    /// It is on its way to another state.
    #[error("sandbox {id} is {state:?}")]
    Transitioning {
        /// Which.
        id: SandboxId,
        /// Where it is.
        state: SandboxState,
    },
    /// The host is full.
    #[error("no room on this host: {diagnostic}")]
    NoRoom {
        /// What is short, for people.
        diagnostic: String,
    },
    /// It could not be woken; it stays paused.
    #[error("wake sandbox {id}")]
    Failed {
        /// Which.
        id: SandboxId,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A pause that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// Unknown or gone.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// It was paused before.
    #[error("sandbox {0} is already paused")]
    Already(SandboxId),
    /// It is being started or killed, or lives a later life.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// Which.
        id: SandboxId,
        /// Where it is.
        state: SandboxState,
    },
    /// The snapshot failed; the sandbox goes on running.
    #[error("pause sandbox {id}")]
    Failed {
        /// Which.
        id: SandboxId,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A resume that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It runs already.
    #[error("sandbox {0} is already running")]
    Already(SandboxId),
    /// As entering.
    #[error(transparent)]
    Enter(#[from] EnterError),
}

/// A fork that did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Unknown or gone.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// Only a running sandbox can be forked.
    #[error("sandbox {0} is paused and cannot be forked; resume it first")]
    Paused(SandboxId),
    /// It is between states.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// Which.
        id: SandboxId,
        /// Where it is.
        state: SandboxState,
    },
    /// It could not be captured; it goes on running.
    #[error("fork sandbox {id}")]
    Failed {
        /// Which.
        id: SandboxId,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A snapshot that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Unknown or gone.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// It is between states.
    #[error("sandbox {id} is {state:?}")]
    Conflict {
        /// Which.
        id: SandboxId,
        /// Where it is.
        state: SandboxState,
    },
    /// It could not be captured; it goes on running.
    #[error("snapshot sandbox {id}")]
    Failed {
        /// Which.
        id: SandboxId,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A kill that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// Unknown or gone.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
}

/// A template that was not built.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing to build it from.
    #[error("template '{name}' has no kernel and root disk on this host")]
    NoArtefacts {
        /// Which.
        name: TemplateName,
        /// What is missing.
        #[source]
        source: Cause,
    },
    /// It did not become ready.
    #[error("build template '{name}'")]
    Failed {
        /// Which.
        name: TemplateName,
        /// Why.
        #[source]
        source: Cause,
    },
}
