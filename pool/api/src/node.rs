//! The boundary of a host: the operations on its sandboxes, snapshots and templates.
//!
//! `contract` (feature `testing`) has a test for each sentence below and runs against every implementation.

use std::fmt;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::{
    Broken, CreateError, EnterError, Epoch, Event, ForkError, ForkSpec, GuestMetrics, IfPaused,
    KillError, Lease, PauseError, ReleaseError, ResumeError, RetainedSnapshot, RollbackError,
    SandboxId, SandboxInfo, SandboxSpec, SnapshotError, SnapshotId, SnapshotScope, TakenSnapshot,
    TemplateError, TemplateInfo, TemplateName,
};

/// A host that runs sandboxes.
///
/// A dropped future cancels the caller's wait only: a create, wake, pause, snapshot or kill that has begun completes.
#[async_trait]
pub trait Node: fmt::Debug + Send + Sync {
    /// Creates a sandbox and returns when it runs. An existing id is [`CreateError::Exists`], a missing origin
    /// [`CreateError::NoTemplate`], a full host [`CreateError::NoRoom`]; a failed create leaves no sandbox.
    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo, CreateError>;

    /// Grants a lease on a running sandbox without waiting; `None` in every other state, and for an unknown sandbox.
    fn try_enter(&self, id: &SandboxId) -> Option<Box<dyn Lease>>;

    /// Grants a lease on a sandbox: at once when it runs, after a wake when it is paused and `if_paused` allows it.
    /// Concurrent callers of a paused sandbox share one wake, and each of their leases carries its report. A sandbox that
    /// is pausing counts as paused: callers that may wake it wait and are let in, others get [`EnterError::Paused`] at
    /// once. A sandbox whose snapshot is disk-only is never woken by `enter`. A failed wake leaves it paused.
    async fn enter(
        &self,
        id: &SandboxId,
        if_paused: IfPaused,
    ) -> Result<Box<dyn Lease>, EnterError>;

    /// Pauses a running sandbox: revokes its leases, takes a snapshot of this scope, and returns when it is durable.
    /// Concurrent callers share the outcome, and the first one's scope holds. An epoch that is not the sandbox's present
    /// one is [`PauseError::Conflict`]; a paused sandbox is [`PauseError::AlreadyPaused`]. A failed pause leaves it
    /// running.
    async fn pause(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, PauseError>;

    /// Wakes a paused sandbox and returns when it runs; one that is pausing is awaited and woken. [`SnapshotScope::DiskOnly`]
    /// boots it from its disk even when its snapshot has memory. A running sandbox is [`ResumeError::AlreadyRunning`].
    async fn resume(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
    ) -> Result<SandboxInfo, ResumeError>;

    /// Restores a running or paused sandbox from a retained snapshot of its own and returns when it runs. It keeps its
    /// identity and starts a new epoch; its leases are revoked. Another sandbox's snapshot, or one that is not retained,
    /// is [`RollbackError::NoSnapshot`]. If the restore fails, the sandbox is paused at that snapshot.
    async fn rollback(
        &self,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SandboxInfo, RollbackError>;

    /// Captures a running sandbox once, resumes it, and forks it into each child; one outcome a child, in order. A paused
    /// sandbox is [`ForkError::Paused`]; one that is starting, pausing or stopping is [`ForkError::Conflict`].
    async fn fork(
        &self,
        origin: &SandboxId,
        children: Vec<ForkSpec>,
    ) -> Result<Vec<Result<SandboxInfo, CreateError>>, ForkError>;

    /// Captures a running sandbox, which resumes, or takes the snapshot of a paused one, and retains it: it outlives the
    /// sandbox until [`Node::release_snapshot`]. The result's scope is what the snapshot has, which for a sandbox paused
    /// disk-only is never memory.
    async fn snapshot(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, SnapshotError>;

    /// Releases a retained snapshot; its files are removed when no sandbox needs them. A snapshot that is not retained is
    /// no error.
    async fn release_snapshot(&self, snapshot: &SnapshotId) -> Result<(), ReleaseError>;

    /// Lists the retained snapshots.
    async fn retained_snapshots(&self) -> Vec<SnapshotId>;

    /// Describes a retained snapshot; `None` when it is not retained or cannot be read.
    async fn retained_snapshot(&self, snapshot: &SnapshotId) -> Option<RetainedSnapshot>;

    /// Asks a running guest for its metrics; `None` when it does not run or does not answer. This neither wakes a sandbox
    /// nor counts as use.
    async fn metrics(&self, id: &SandboxId) -> Option<GuestMetrics>;

    /// Kills a sandbox in any state, removes its snapshots that are not retained, and returns when nothing of it is left.
    async fn kill(&self, id: &SandboxId) -> Result<(), KillError>;

    /// Describes a sandbox; `None` when it is unknown or stopped.
    async fn info(&self, id: &SandboxId) -> Option<SandboxInfo>;

    /// Describes every sandbox that is not stopped, ordered by id.
    async fn list(&self) -> Vec<SandboxInfo>;

    /// Lists the sandboxes and retained snapshots whose files cannot be read. Their files are kept. Such a sandbox is in
    /// no other list; a wake of it is [`EnterError::Failed`] with [`FailedPart::Host`](crate::FailedPart::Host) or
    /// [`FailedPart::Snapshot`](crate::FailedPart::Snapshot) until its files can be read again, and a kill removes it.
    async fn broken(&self) -> Vec<Broken>;

    /// Returns the spec that a sandbox was created with; `None` when it is unknown, stopped or broken.
    async fn spec(&self, id: &SandboxId) -> Option<SandboxSpec>;

    /// Returns the last `limit` bytes of the guest's console; `None` when the sandbox is unknown.
    async fn console(&self, id: &SandboxId, limit: usize) -> Option<Vec<u8>>;

    /// Describes every template.
    async fn templates(&self) -> Vec<TemplateInfo>;

    /// Boots a template from this host's guest artefacts and keeps the snapshot taken once it is ready. Returns at once
    /// when it is built already from the same artefacts.
    async fn build_template(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError>;

    /// Subscribes to events from now on. Each start, pause and stop of a sandbox is one event, sent once its effects are
    /// visible. A receiver that lags must reconcile with [`Node::list`].
    fn events(&self) -> broadcast::Receiver<Event>;
}
