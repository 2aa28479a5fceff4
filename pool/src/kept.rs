//! Snapshots that were asked for: they outlive their sandboxes, until somebody gives them up.
//!
//! ```text
//! kept/<snapshot>.json   whose it is
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

use crate::home::replace;

/// The kept snapshots of this host.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
    known: Mutex<BTreeMap<SnapshotId, One>>,
}

#[derive(Debug)]
struct One {
    record: Record,
    pin: Pin,
}

/// What is remembered of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The sandbox it was taken of.
    sandbox: SandboxId,
}

impl Kept {
    /// Finds those that were kept before.
    pub(crate) fn open(dir: PathBuf, store: &Store) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let Some(id) = named(&path) else {
                continue;
            };
            match read(&path) {
                Ok(record) if store.contains(&id) => {
                    let pin = store.pin(&id);
                    known.insert(id, One { record, pin });
                }
                Ok(_) => warn!(snapshot = %id, "a snapshot that was to be kept is gone"),
                Err(error) => {
                    warn!(path = %path.display(), %error, "cannot read whose a snapshot is");
                }
            }
        }
        let known = Mutex::new(known);
        Ok(Self { dir, known })
    }

    /// Keeps one, durably. Blocks.
    pub(crate) fn add(&self, pin: Pin, sandbox: SandboxId) -> io::Result<()> {
        let record = Record { sandbox };
        let bytes = serde_json::to_vec_pretty(&record)?;
        replace(&self.dir, &format!("{}.json", pin.id()), &bytes)?;
        self.known
            .lock()
            .insert(pin.id().clone(), One { record, pin });
        Ok(())
    }

    /// Gives one up; `false` when it is not kept. Blocks.
    pub(crate) fn remove(&self, id: &SnapshotId) -> io::Result<bool> {
        match fs::remove_file(self.dir.join(format!("{id}.json"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(self.known.lock().remove(id).is_some())
    }

    /// One that was taken of this sandbox.
    pub(crate) fn of(&self, sandbox: &SandboxId, id: &SnapshotId) -> Option<Pin> {
        let known = self.known.lock();
        let one = known.get(id)?;
        (one.record.sandbox == *sandbox).then(|| one.pin.clone())
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<SnapshotId> {
        self.known.lock().keys().cloned().collect()
    }
}

fn named(path: &Path) -> Option<SnapshotId> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".json")?.parse().ok()
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
