//! The directory of snapshots.
//!
//! ```text
//! snapshots/<id>/{manifest, machine, memory, disk0, ..., working-set}
//! staging/<random>     a snapshot being assembled or removed
//! ```
//!
//! A snapshot appears by one rename after all its files are synced, and disappears by one rename before they are removed:
//! after a crash it is whole or absent. [`Store::open`] empties `staging`.
//!
//! A snapshot stays while a [`Pin`] holds it, or while a pinned snapshot references its layers. [`Store::collect`] removes
//! the rest; dropping a pin removes nothing. A process that ends drops its pins in any order, so it closes the store first,
//! which disables removal.

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

/// Holds a snapshot: no file that it references is removed.
#[derive(Debug)]
#[must_use = "the snapshot may be removed as soon as the pin is dropped"]
pub struct Pin {
    id: SnapshotId,
    pins: Arc<Mutex<Pins>>,
}

/// Failure of a store operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A directory cannot be created, read or emptied.
    #[error("failed to prepare snapshot directory {}", path.display())]
    Prepare {
        /// The object.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An unreferenced snapshot cannot be removed.
    #[error("failed to remove {}", path.display())]
    Remove {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The pinned snapshots.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: HashMap<SnapshotId, Pinned>,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Pinned {
    count: usize,
    /// The other snapshots it references; `None` when its manifest cannot be read.
    needs: Option<Vec<SnapshotId>>,
}

// === impl Store ===

impl Store {
    /// Opens or creates the store in `root` and empties the staging directory. Pin the snapshots to keep, then call
    /// [`Store::collect`].
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

    /// Returns the directory of a snapshot.
    pub fn path(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots_dir().join(id.as_str())
    }

    /// Reads and checks the manifest of a snapshot.
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

    /// Returns whether a snapshot exists.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        self.path(id).is_dir()
    }

    /// Pins a snapshot, readable or not. An unreadable one disables removal, because its references are unknown.
    pub fn pin(&self, id: &SnapshotId) -> Pin {
        let needs = || match self.manifest(id) {
            Ok(manifest) => Some(manifest.owners().cloned().collect()),
            Err(error) => {
                let error = error_chain::chain(&error);
                warn!(snapshot.id = %id, %error, "failed to read references of pinned snapshot");
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

    /// Disables removal, also of snapshots whose pins are dropped later.
    pub fn close(&self) {
        self.pins.lock().closed = true;
    }

    /// Removes every snapshot that is neither pinned nor referenced by a pinned one; returns their number.
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

    /// Moves unreferenced snapshots into `staging`, under the lock on pins: a new pin finds a snapshot whole or absent.
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
            fs::rename(&path, trash.path().join("snapshot")).map_err(remove)?;
            garbage.push(trash.keep());
        }
        Ok(garbage)
    }
}

// === impl Pin ===

impl Pin {
    /// Returns the id of the pinned snapshot.
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
