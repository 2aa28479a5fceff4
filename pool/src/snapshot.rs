//! Taking a snapshot of a machine, and resuming the machine after it.

use std::{io, sync::Arc};

use pool_api::{SnapshotId, SnapshotScope};
use snapshotter::{CaptureSource, CommitError, Committed};
use tracing::warn;
use vmm_api::{CaptureError, Machine, MachineError, TopLayer};

use crate::{
    blocking::{Interrupted, blocking},
    fsfreeze::{FreezeError, freeze, thaw},
    host::Host,
    sandbox_dir::{Record, SandboxDir},
};

/// Failure of [`take_snapshot`]. The machine is stopped and unchanged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("failed to stage the snapshot")]
    Stage(#[source] CommitError),
    #[error("failed to freeze the guest's filesystem")]
    Freeze(#[source] FreezeError),
    #[error("failed to stop the machine")]
    Pause(#[source] MachineError),
    #[error("failed to capture the machine")]
    Capture(#[source] CaptureError),
    #[error("failed to commit the snapshot")]
    Commit(#[source] CommitError),
    #[error("failed to record the sandbox's snapshot")]
    Record(#[source] io::Error),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Failure of [`resume_after_capture`]. The machine is killed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResumeError {
    #[error("failed to create a top layer")]
    TopLayer(#[source] io::Error),
    #[error("failed to replace the top layers")]
    Advance(#[source] MachineError),
    #[error("failed to resume the machine")]
    Resume(#[source] MachineError),
    #[error("failed to thaw the guest's filesystem")]
    Thaw(#[source] FreezeError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Makes the record of a sandbox that wakes from the snapshot with this id.
pub(crate) type RecordBuilder = Box<dyn FnOnce(SnapshotId) -> Record + Send>;

/// Stops a machine and takes a durable snapshot of it. On return the VM is paused, on success or failure; for a
/// disk-only snapshot its filesystem may still be frozen.
pub(crate) async fn take_snapshot(
    host: &Host,
    machine: &dyn Machine,
    scope: SnapshotScope,
    source: CaptureSource,
    record: Option<(SandboxDir, RecordBuilder)>,
) -> Result<Committed, SnapshotError> {
    let store = Arc::clone(&host.store);
    let (memory, disks) = (source.resources.memory, source.disks.len());
    let staging = blocking(move || store.stage(scope, memory, disks))
        .await?
        .map_err(SnapshotError::Stage)?;
    if scope == SnapshotScope::DiskOnly {
        freeze(machine).await.map_err(SnapshotError::Freeze)?;
    }
    machine.pause().await.map_err(SnapshotError::Pause)?;
    let spec = staging.spec().map_err(SnapshotError::Stage)?;
    let captured = machine
        .capture(spec)
        .await
        .map_err(SnapshotError::Capture)?;
    let store = Arc::clone(&host.store);
    blocking(move || {
        let committed = staging
            .commit(&store, &captured, source)
            .map_err(SnapshotError::Commit)?;
        if let Some((dir, record)) = record {
            let record = record(committed.pin.id().clone());
            dir.save(&record).map_err(SnapshotError::Record)?;
        }
        Ok(committed)
    })
    .await?
}

/// Resumes a machine after a snapshot of this scope, on new top layers of these sizes, if there are any. A machine that
/// fails to resume is killed.
pub(crate) async fn resume_after_capture(
    machine: &dyn Machine,
    dir: &SandboxDir,
    new_top_layers: Vec<u64>,
    scope: SnapshotScope,
) -> Result<(), ResumeError> {
    let mut result = resume(machine, dir, new_top_layers).await;
    if scope == SnapshotScope::DiskOnly && result.is_ok() {
        result = thaw(machine).await.map_err(ResumeError::Thaw);
    }
    if let Err(error) = &result {
        warn!(error = %error_chain::chain(error), "failed to resume machine; killing it");
        machine.kill().await;
    }
    result
}

async fn resume(
    machine: &dyn Machine,
    dir: &SandboxDir,
    new_top_layers: Vec<u64>,
) -> Result<(), ResumeError> {
    if !new_top_layers.is_empty() {
        let dir = dir.clone();
        let layers = blocking(move || {
            new_top_layers
                .iter()
                .map(|size| dir.new_top_layer(*size))
                .collect::<io::Result<Vec<TopLayer>>>()
        });
        let layers = layers.await?.map_err(ResumeError::TopLayer)?;
        machine
            .advance(layers)
            .await
            .map_err(ResumeError::Advance)?;
    }
    machine.resume().await.map_err(ResumeError::Resume)
}
