//! The directory that holds snapshots.
//!
//! ```text
//! snapshots/<id>/{manifest, machine, memory, disk0, ..., working-set}
//! staging/<random>     a snapshot being made, or one being removed
//! ```
//!
//! A snapshot comes into being by one rename after all its files are synced, and goes by one rename before they are
//! removed: after a crash each is whole or not there. What lies in `staging` at start is removed.
//!
//! A snapshot stays while a [`Pin`] holds it, or while one that is held refers to its layers. [`Store::collect`] removes
//! the rest, and only that: dropping a pin does no work. As a process that ends lets go of its pins in no order, it closes
//! the store first, and nothing is removed from then on.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use pool_api::SnapshotId;
use tracing::warn;

use crate::{Manifest, ManifestError, OpenError, resident::Residents, verified::Verified};

/// The snapshots of this host.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) pins: Arc<Mutex<Pins>>,
    pub(crate) residents: Residents,
    pub(crate) verified: Verified,
}

/// Holds a snapshot: while one is out, no file that it needs is removed.
#[derive(Debug)]
#[must_use = "the snapshot may be removed as soon as the pin is dropped"]
pub struct Pin {
    id: SnapshotId,
    pins: Arc<Mutex<Pins>>,
}

/// A store that is not usable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A directory cannot be made, read or emptied.
    #[error("prepare snapshot directory {}", path.display())]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What nothing refers to could not be removed.
    #[error("remove {}", path.display())]
    Remove {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Who is held how often.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: HashMap<SnapshotId, Pinned>,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Pinned {
    count: usize,
    /// The other snapshots it needs; `None` when its manifest cannot be read.
    needs: Option<Vec<SnapshotId>>,
}

// === impl Store ===

impl Store {
    /// Opens the store in `root`, makes it if it is not there, and removes what a crash left half done. Pin what is to be
    /// kept, then [`Store::collect`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            root: root.to_owned(),
            pins: Arc::default(),
            residents: Residents::default(),
            verified: Verified::default(),
        };
        let prepare = |path: PathBuf| move |source| StoreError::Prepare { path, source };
        let staging = store.staging_dir();
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(prepare(staging)(error));
            }
            _ => {}
        }
        for path in [store.snapshots_dir(), staging] {
            fs::create_dir_all(&path).map_err(prepare(path))?;
        }
        Ok(store)
    }

    pub(crate) fn staging_dir(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Where a snapshot's files are.
    pub fn path(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots_dir().join(id.as_str())
    }

    /// Reads and checks a snapshot's manifest.
    pub fn manifest(&self, id: &SnapshotId) -> Result<Manifest, OpenError> {
        let path = self.path(id).join("manifest");
        let read = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let len = fs::metadata(&path).map_err(read)?.len();
        if len > Manifest::MAX_LEN as u64 {
            return Err(OpenError::Manifest {
                path,
                source: ManifestError::TooLong,
            });
        }
        let bytes = fs::read(&path).map_err(read)?;
        Manifest::decode(&bytes, id).map_err(|source| OpenError::Manifest { path, source })
    }

    /// Whether there is a snapshot of this name.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        self.path(id).is_dir()
    }

    /// Holds a snapshot, whether it can be read or not. One that cannot be read stops every removal, as nobody knows what
    /// it needs.
    pub fn pin(&self, id: &SnapshotId) -> Pin {
        let needs = || match self.manifest(id) {
            Ok(manifest) => Some(manifest.owners().cloned().collect()),
            Err(error) => {
                warn!(snapshot = %id, error = &error as &dyn std::error::Error, "cannot read what a held snapshot needs");
                None
            }
        };
        self.pin_with(id, needs)
    }

    pub(crate) fn pin_with(
        &self,
        id: &SnapshotId,
        needs: impl FnOnce() -> Option<Vec<SnapshotId>>,
    ) -> Pin {
        let mut pins = self.pins.lock();
        let pinned = pins.held.entry(id.clone()).or_insert_with(|| Pinned {
            count: 0,
            needs: needs(),
        });
        pinned.count += 1;
        Pin {
            id: id.clone(),
            pins: Arc::clone(&self.pins),
        }
    }

    /// Removes nothing from now on, whatever is let go.
    pub fn close(&self) {
        self.pins.lock().closed = true;
    }

    /// Removes every snapshot that is neither held nor needed by one that is, and says how many.
    pub fn collect(&self) -> Result<usize, StoreError> {
        let garbage = self.unlink_unreferenced()?;
        for path in &garbage {
            fs::remove_dir_all(path).map_err(|source| StoreError::Remove {
                path: path.clone(),
                source,
            })?;
        }
        Ok(garbage.len())
    }

    /// Moves what is to go into `staging`. Pins are locked meanwhile: whoever pins finds a snapshot whole or gone.
    fn unlink_unreferenced(&self) -> Result<Vec<PathBuf>, StoreError> {
        let pins = self.pins.lock();
        if pins.closed {
            return Ok(Vec::new());
        }
        let mut live: HashSet<&str> = HashSet::new();
        for (id, pinned) in &pins.held {
            live.insert(id.as_str());
            let Some(needs) = &pinned.needs else {
                return Ok(Vec::new());
            };
            live.extend(needs.iter().map(SnapshotId::as_str));
        }
        let dir = self.snapshots_dir();
        let prepare = |source| StoreError::Prepare {
            path: dir.clone(),
            source,
        };
        let mut garbage = Vec::new();
        for entry in fs::read_dir(&dir).map_err(prepare)? {
            let entry = entry.map_err(prepare)?;
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| live.contains(name))
            {
                continue;
            }
            let path = entry.path();
            let remove = |source| StoreError::Remove {
                path: path.clone(),
                source,
            };
            let trash = tempfile::Builder::new()
                .prefix("removed-")
                .tempdir_in(self.staging_dir())
                .map_err(remove)?;
            fs::rename(&path, trash.path().join("it")).map_err(remove)?;
            garbage.push(trash.keep());
        }
        Ok(garbage)
    }
}

// === impl Pin ===

impl Pin {
    /// What it holds.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        if let Some(pinned) = self.pins.lock().held.get_mut(&self.id) {
            pinned.count += 1;
        }
        Self {
            id: self.id.clone(),
            pins: Arc::clone(&self.pins),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.lock();
        if let Some(pinned) = pins.held.get_mut(&self.id) {
            pinned.count -= 1;
            if pinned.count == 0 {
                pins.held.remove(&self.id);
            }
        }
    }
}
