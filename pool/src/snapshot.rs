//! Taking a snapshot of a machine, and resuming the machine after it.

use std::{io, sync::Arc};

use pool_api::{SnapshotId, SnapshotScope};
use snapshotter::{CaptureSource, CommitError, Committed, Pin, Store};
use tracing::warn;
use vmm_api::{CaptureError, Machine, MachineError, NextLayers};

use crate::{
    blocking::{Interrupted, blocking},
    durable_file::{ReplaceError, Visible},
    fsfreeze::{FreezeError, Frozen, freeze, thaw},
    host::Host,
    running::MissingLayers,
    sandbox_dir::{Record, SandboxDir},
    top_layer::TopFile,
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
    Record(#[source] ReplaceError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A snapshot that was not taken, or is durable but not recorded.
#[derive(Debug)]
pub(crate) struct NotTaken {
    pub(crate) error: SnapshotError,
    /// The snapshot that is not recorded. Its layers include the machine's top layers.
    pub(crate) committed: Option<Box<Committed>>,
}

impl NotTaken {
    /// Returns a pin of the snapshot that the record may name although its write failed.
    pub(crate) fn maybe_recorded(&self) -> Option<Pin> {
        match (&self.error, &self.committed) {
            (SnapshotError::Record(error), Some(committed)) if error.visible == Visible::Maybe => {
                Some(committed.pin.clone())
            }
            _ => None,
        }
    }

    /// Returns whether the filesystem may be frozen after a disk-only snapshot failed with this.
    pub(crate) fn leaves_frozen(&self) -> Frozen {
        match &self.error {
            SnapshotError::Stage(_) | SnapshotError::Freeze(FreezeError::Dial(_)) => Frozen::No,
            _ => Frozen::Maybe,
        }
    }
}

impl<E: Into<SnapshotError>> From<E> for NotTaken {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            committed: None,
        }
    }
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
) -> Result<Committed, NotTaken> {
    let store = Arc::clone(&host.store);
    let (memory, disks) = (source.resources.memory, source.disks.len());
    let staging = blocking(move || store.stage(scope, memory, disks))
        .await?
        .map_err(SnapshotError::Stage)?;
    if scope == SnapshotScope::DiskOnly {
        freeze(machine).await.map_err(SnapshotError::Freeze)?;
    }
    // After the freeze, for which a guest may take its time. The semaphore is never closed.
    let _permit = host.capture_permits.acquire().await;
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
        let Some((dir, record)) = record else {
            return Ok(committed);
        };
        match dir.save(&record(committed.pin.id().clone())) {
            Ok(()) => Ok(committed),
            Err(error) => Err(NotTaken {
                error: SnapshotError::Record(error),
                committed: Some(Box::new(committed)),
            }),
        }
    })
    .await?
}

/// Resumes a machine after a snapshot, on new layers if its disks need some; returns the files of its top layers. A
/// machine that fails to resume is killed. A filesystem that cannot be thawed now is thawed later.
pub(crate) async fn resume_after_capture(
    host: &Host,
    machine: &Arc<dyn Machine>,
    dir: &SandboxDir,
    missing: Vec<MissingLayers>,
    frozen: Frozen,
) -> Result<Vec<TopFile>, ResumeError> {
    let result = resume(host, &**machine, dir, missing).await;
    if let Err(error) = &result {
        warn!(error = %error_chain::chain(error), "failed to resume machine; killing it");
        machine.kill().await;
    } else if frozen == Frozen::Maybe {
        thaw(machine).await;
    }
    result
}

async fn resume(
    host: &Host,
    machine: &dyn Machine,
    dir: &SandboxDir,
    missing: Vec<MissingLayers>,
) -> Result<Vec<TopFile>, ResumeError> {
    let mut files = Vec::new();
    if !missing.is_empty() {
        let (store, dir) = (Arc::clone(&host.store), dir.clone());
        let created = blocking(move || {
            let disks = missing.into_iter().enumerate();
            disks
                .map(|(number, missing)| create_layers(&store, &dir, number, missing))
                .collect::<io::Result<Vec<_>>>()
        });
        let created = created.await?.map_err(ResumeError::TopLayer)?;
        let next;
        (files, next) = created.into_iter().unzip();
        machine.advance(next).await.map_err(ResumeError::Advance)?;
    }
    machine.resume().await.map_err(ResumeError::Resume)?;
    Ok(files)
}

/// Creates the top layer of a disk, and opens the sealed ones if they were folded. The machine keeps its present layers,
/// which have the same content, when the folded ones cannot be opened. Blocks.
fn create_layers(
    store: &Store,
    dir: &SandboxDir,
    number: usize,
    missing: MissingLayers,
) -> io::Result<(TopFile, NextLayers)> {
    let file = TopFile::create(dir.path(), missing.size)?;
    let sealed = missing.folded.and_then(|(pin, disk)| {
        let opened = store.open_disk_layers(pin.id(), number, &disk);
        opened
            .inspect_err(|error| {
                warn!(error = %error_chain::chain(error), "failed to open folded disk layers");
            })
            .ok()
    });
    let next = NextLayers {
        top: file.layer()?,
        sealed,
    };
    Ok((file, next))
}
