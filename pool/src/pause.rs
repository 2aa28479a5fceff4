//! Writing a machine down.

use std::{io, sync::Arc};

use pool_api::{SnapshotId, SnapshotScope};
use snapshotter::{CommitError, Committed, Cut};
use tracing::warn;
use vmm_api::{CaptureError, Machine, MachineError, TopLayer};

use crate::{
    cause::chain,
    home::{Home, Record},
    host::{Host, Interrupted, blocking},
    thaw::{ThawError, freeze, unfreeze},
};

/// A machine that was not written down. It is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("make room for the snapshot")]
    Stage(#[source] CommitError),
    #[error("freeze the guest's filesystem")]
    Freeze(#[source] ThawError),
    #[error("stop the machine")]
    Pause(#[source] MachineError),
    #[error("capture the machine")]
    Capture(#[source] CaptureError),
    #[error("keep the snapshot")]
    Commit(#[source] CommitError),
    #[error("write down what the sandbox wakes from")]
    Record(#[source] io::Error),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A machine that did not go on. It has been killed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GoOnError {
    #[error("make a new top layer")]
    Top(#[source] io::Error),
    #[error("go on with a new top layer")]
    Advance(#[source] MachineError),
    #[error("let the machine run")]
    Resume(#[source] MachineError),
    #[error("let the guest write to its filesystem again")]
    Unfreeze(#[source] ThawError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What a durable snapshot is to be known by: given its name, the record that remembers it.
pub(crate) type Remember = Box<dyn FnOnce(SnapshotId) -> Record + Send>;

/// Stops a machine and makes a durable snapshot of it. The machine stays stopped, whatever comes of it; when only its
/// filesystem was to be kept, that may be frozen.
pub(crate) async fn write_down(
    host: &Host,
    machine: &dyn Machine,
    keep: SnapshotScope,
    cut: Cut,
    remember: Option<(Home, Remember)>,
) -> Result<Committed, WriteError> {
    let store = Arc::clone(&host.store);
    let (memory, disks) = (cut.resources.memory, cut.disks.len());
    let staging = blocking(move || store.stage(keep, memory, disks))
        .await?
        .map_err(WriteError::Stage)?;
    if keep == SnapshotScope::DiskOnly {
        freeze(machine).await.map_err(WriteError::Freeze)?;
    }
    machine.pause().await.map_err(WriteError::Pause)?;
    let spec = staging.spec().map_err(WriteError::Stage)?;
    let captured = machine.capture(spec).await.map_err(WriteError::Capture)?;
    let store = Arc::clone(&host.store);
    blocking(move || {
        let committed = staging
            .commit(&store, &captured, cut)
            .map_err(WriteError::Commit)?;
        if let Some((home, remember)) = remember {
            let record = remember(committed.pin.id().clone());
            home.save(&record).map_err(WriteError::Record)?;
        }
        Ok(committed)
    })
    .await?
}

/// Lets a stopped machine go on; on new top layers of these sizes, if there are any. `frozen`: its filesystem may be.
pub(crate) async fn go_on(
    machine: &dyn Machine,
    home: &Home,
    new_tops: Vec<u64>,
    frozen: bool,
) -> Result<(), GoOnError> {
    let mut result = try_go_on(machine, home, new_tops).await;
    if frozen && result.is_ok() {
        result = unfreeze(machine).await.map_err(GoOnError::Unfreeze);
    }
    if let Err(error) = &result {
        warn!(
            error = chain(error),
            "a machine could not go on and is ended"
        );
        machine.kill().await;
    }
    result
}

async fn try_go_on(
    machine: &dyn Machine,
    home: &Home,
    new_tops: Vec<u64>,
) -> Result<(), GoOnError> {
    if !new_tops.is_empty() {
        let home = home.clone();
        let tops = blocking(move || {
            new_tops
                .iter()
                .map(|size| home.new_top(*size))
                .collect::<io::Result<Vec<TopLayer>>>()
        });
        let tops = tops.await?.map_err(GoOnError::Top)?;
        machine.advance(tops).await.map_err(GoOnError::Advance)?;
    }
    machine.resume().await.map_err(GoOnError::Resume)
}
