//! Recovery of the sandboxes of an earlier pool.
//!
//! A sandbox with a record has a durable snapshot, so it is paused. A sandbox that never had a record is removed. One
//! whose record or snapshot cannot be read is broken: its files are kept, no snapshot that exists is removed, and it
//! recovers when its files can be read again.

use std::{fs, io, path::Path, sync::Arc};

use pool_api::{SandboxId, SnapshotId};
use tracing::{error, info};

use crate::{
    blocking::Interrupted,
    driver::{Handle, InitialState},
    host::Host,
    registry::Registry,
    sandbox_dir::{Record, RecordError, SandboxDir},
    top_layer::TopFile,
};

/// The reason why a sandbox cannot be recovered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("failed to read the record")]
    Record(#[source] RecordError),
    #[error("the record is of sandbox {0}")]
    OtherSandbox(SandboxId),
    #[error("failed to find snapshot {id}")]
    Snapshot {
        id: SnapshotId,
        #[source]
        source: io::Error,
    },
    #[error("snapshot {0} is missing")]
    NoSnapshot(SnapshotId),
    #[error("failed to remove old files")]
    Remove(#[source] io::Error),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Spawns a driver for each sandbox that can wake, and removes those that never had a snapshot. One that cannot be
/// recovered does not affect the others.
pub(crate) fn recover_sandboxes(
    host: &Arc<Host>,
    registry: &Registry<Handle>,
    sandboxes: &Path,
) -> io::Result<()> {
    fs::create_dir_all(sandboxes)?;
    for entry in fs::read_dir(sandboxes)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(|name| name.parse::<SandboxId>().ok()) else {
            error!(path = %path.display(), "entry is not a sandbox; it is kept");
            continue;
        };
        match recover_sandbox(host, registry, &id, &SandboxDir::new(path)) {
            Ok(Recovered::Paused) => {}
            Ok(Recovered::Removed) => info!(sandbox.id = %id, "sandbox without a snapshot removed"),
            Err(error) => {
                let reason = error_chain::chain(&error).to_string();
                error!(sandbox.id = %id, error = reason, "failed to recover sandbox; its files are kept");
                host.broken.add_sandbox(id, reason);
            }
        }
    }
    Ok(())
}

/// The outcome of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// The sandbox is paused and registered.
    Paused,
    /// It had never been snapshotted.
    Removed,
}

/// Recovers one sandbox.
pub(crate) fn recover_sandbox(
    host: &Arc<Host>,
    registry: &Registry<Handle>,
    id: &SandboxId,
    dir: &SandboxDir,
) -> Result<Recovered, RecoveryError> {
    let Some(record) = dir.load().map_err(RecoveryError::Record)? else {
        dir.remove().map_err(RecoveryError::Remove)?;
        return Ok(Recovered::Removed);
    };
    check(host, id, &record)?;
    TopFile::remove_stale(dir.path()).map_err(RecoveryError::Remove)?;
    let spec = Arc::new(record.spec.clone());
    let initial = InitialState::Paused {
        snapshot: host.store.pin(&record.snapshot),
        record: Box::new(record),
    };
    let Some(registration) = registry.reserve(id) else {
        // A concurrent caller recovered it.
        return Ok(Recovered::Paused);
    };
    registration.fill(|registration| {
        Handle::spawn(Arc::clone(host), spec, dir.clone(), registration, initial)
    });
    Ok(Recovered::Paused)
}

fn check(host: &Host, id: &SandboxId, record: &Record) -> Result<(), RecoveryError> {
    if record.spec.id != *id {
        return Err(RecoveryError::OtherSandbox(record.spec.id.clone()));
    }
    let snapshot = &record.snapshot;
    match host.store.contains(snapshot) {
        Ok(true) => Ok(()),
        Ok(false) => Err(RecoveryError::NoSnapshot(snapshot.clone())),
        Err(source) => Err(RecoveryError::Snapshot {
            id: snapshot.clone(),
            source,
        }),
    }
}
