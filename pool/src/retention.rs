//! Retained snapshots: they outlive their sandboxes until they are released.
//!
//! ```text
//! kept/<snapshot>.json   the sandbox that it was taken of
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use pool_api::{SandboxId, SnapshotId};
use serde::{Deserialize, Serialize};
use snapshotter::{Pin, Store};
use tracing::error;

use crate::{broken::BrokenObjects, durable_file};

/// The retained snapshots of this host.
#[derive(Debug)]
pub(crate) struct RetainedSnapshots {
    dir: PathBuf,
    entries: Mutex<BTreeMap<SnapshotId, Retained>>,
}

#[derive(Debug)]
struct Retained {
    record: Record,
    pin: Pin,
}

/// The durable part of an entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The sandbox that the snapshot was taken of.
    sandbox: SandboxId,
}

/// Failure to load an entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("failed to read the record")]
    Read(#[source] io::Error),
    #[error("the record is damaged")]
    Damaged(#[source] serde_json::Error),
    #[error("failed to find the snapshot")]
    Snapshot(#[source] io::Error),
    #[error("the snapshot is missing")]
    NoSnapshot,
}

impl RetainedSnapshots {
    /// Loads the entries of a directory. One that cannot be read is broken; its file is kept.
    pub(crate) fn open(dir: PathBuf, store: &Store, broken: &BrokenObjects) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let retained = Self {
            dir,
            entries: Mutex::default(),
        };
        for entry in fs::read_dir(&retained.dir)? {
            let Some(id) = snapshot_id(&entry?.path()) else {
                continue;
            };
            if let Err(error) = retained.load(&id, store) {
                let reason = error_chain::chain(&error).to_string();
                error!(snapshot.id = %id, error = reason, "failed to load retained snapshot; it is kept");
                broken.add_snapshot(id, reason);
            }
        }
        Ok(retained)
    }

    /// Loads one entry. Blocks.
    pub(crate) fn load(&self, id: &SnapshotId, store: &Store) -> Result<(), LoadError> {
        let bytes = fs::read(self.dir.join(file_name(id))).map_err(LoadError::Read)?;
        let record: Record = serde_json::from_slice(&bytes).map_err(LoadError::Damaged)?;
        if !store.contains(id).map_err(LoadError::Snapshot)? {
            return Err(LoadError::NoSnapshot);
        }
        let pin = store.pin(id);
        self.entries
            .lock()
            .insert(id.clone(), Retained { record, pin });
        Ok(())
    }

    /// Retains a snapshot, durably. Blocks.
    pub(crate) fn add(&self, pin: Pin, sandbox: SandboxId) -> io::Result<()> {
        let record = Record { sandbox };
        let bytes = serde_json::to_vec_pretty(&record)?;
        durable_file::replace(&self.dir, &file_name(pin.id()), &bytes)?;
        self.entries
            .lock()
            .insert(pin.id().clone(), Retained { record, pin });
        Ok(())
    }

    /// Releases a snapshot; returns whether it was retained. Blocks.
    pub(crate) fn remove(&self, id: &SnapshotId) -> io::Result<bool> {
        durable_file::remove(&self.dir, &file_name(id))?;
        Ok(self.entries.lock().remove(id).is_some())
    }

    /// Returns a snapshot that was taken of this sandbox.
    pub(crate) fn of_sandbox(&self, sandbox: &SandboxId, id: &SnapshotId) -> Option<Pin> {
        let entries = self.entries.lock();
        let retained = entries.get(id)?;
        (retained.record.sandbox == *sandbox).then(|| retained.pin.clone())
    }

    /// Returns the sandbox that a snapshot was taken of.
    pub(crate) fn sandbox_of(&self, id: &SnapshotId) -> Option<SandboxId> {
        let entries = self.entries.lock();
        Some(entries.get(id)?.record.sandbox.clone())
    }

    /// Lists the ids.
    pub(crate) fn ids(&self) -> Vec<SnapshotId> {
        self.entries.lock().keys().cloned().collect()
    }
}

fn snapshot_id(path: &Path) -> Option<SnapshotId> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".json")?.parse().ok()
}

fn file_name(id: &SnapshotId) -> String {
    format!("{id}.json")
}
