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
use tracing::warn;

use crate::sandbox_dir::write_atomic;

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

impl RetainedSnapshots {
    /// Loads the entries of a directory.
    pub(crate) fn open(dir: PathBuf, store: &Store) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let Some(id) = snapshot_id(&path) else {
                continue;
            };
            match read(&path) {
                Ok(record) if store.contains(&id) => {
                    let pin = store.pin(&id);
                    entries.insert(id, Retained { record, pin });
                }
                Ok(_) => warn!(snapshot.id = %id, "retained snapshot is missing"),
                Err(error) => {
                    let error = error_chain::chain(&error);
                    warn!(path = %path.display(), %error, "failed to read retained snapshot");
                }
            }
        }
        Ok(Self {
            dir,
            entries: Mutex::new(entries),
        })
    }

    /// Retains a snapshot, durably. Blocks.
    pub(crate) fn add(&self, pin: Pin, sandbox: SandboxId) -> io::Result<()> {
        let record = Record { sandbox };
        let bytes = serde_json::to_vec_pretty(&record)?;
        write_atomic(&self.dir, &format!("{}.json", pin.id()), &bytes)?;
        self.entries
            .lock()
            .insert(pin.id().clone(), Retained { record, pin });
        Ok(())
    }

    /// Releases a snapshot; returns whether it was retained. Blocks.
    pub(crate) fn remove(&self, id: &SnapshotId) -> io::Result<bool> {
        match fs::remove_file(self.dir.join(format!("{id}.json"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(self.entries.lock().remove(id).is_some())
    }

    /// Returns a snapshot that was taken of this sandbox.
    pub(crate) fn of_sandbox(&self, sandbox: &SandboxId, id: &SnapshotId) -> Option<Pin> {
        let entries = self.entries.lock();
        let retained = entries.get(id)?;
        (retained.record.sandbox == *sandbox).then(|| retained.pin.clone())
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

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
