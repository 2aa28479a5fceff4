//! The directory of snapshots.
//!
//! ```text
//! snapshots/<id>/{manifest, machine, memory, disk0, ..., working-set}
//! bases/<digest>       a raw disk image below the layers of snapshots
//! staging/<random>     a snapshot or an image being assembled or removed
//! ```
//!
//! A snapshot appears by one rename after all its files are synced, and disappears by one rename before they are removed:
//! after a crash it is whole or absent. [`Store::open`] empties `staging`.
//!
//! A snapshot stays while a [`Pin`] holds it, or while a pinned snapshot references its layers. [`Store::collect`] removes
//! the snapshots that lost their last pin or reference, [`Store::collect_all`] all that have none; dropping a pin removes
//! nothing. A process that ends drops its pins in any order, so it closes the store first, which disables removal.

pub(crate) mod bases;
mod garbage;
pub(crate) mod pins;
pub(crate) mod staging_dir;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use pool_api::SnapshotId;
use tracing::warn;

use self::{
    pins::{Needs, Pin, SharedPins},
    staging_dir::InUse,
};
use crate::{Manifest, ManifestError, OpenError, resident::Residents, verified::Verified};

/// The snapshots of this host.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    staging_in_use: InUse,
    pub(crate) pins: Arc<SharedPins>,
    pub(crate) residents: Residents,
    pub(crate) verified: Verified,
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

// === impl Store ===

impl Store {
    /// Opens or creates the store in `root` and empties the staging directory. Pin the snapshots to keep, then call
    /// [`Store::collect_all`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            root: root.to_owned(),
            staging_in_use: InUse::default(),
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
        for path in [store.snapshots_dir(), store.bases_dir(), staging] {
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

    pub(crate) fn bases_dir(&self) -> PathBuf {
        self.root.join("bases")
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

    /// Returns whether a snapshot exists; an error when that cannot be found out now.
    pub fn contains(&self, id: &SnapshotId) -> io::Result<bool> {
        match fs::metadata(self.path(id)) {
            Ok(metadata) => Ok(metadata.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pins a snapshot, readable or not. While the references of an unreadable one are unknown, every snapshot that exists
    /// is protected. Blocks.
    pub fn pin(&self, id: &SnapshotId) -> Pin {
        if let Some(pin) = SharedPins::pin_held(&self.pins, id) {
            return pin;
        }
        let needs = self.needs(id).unwrap_or_else(|error| {
            let error = error_chain::chain(&error);
            warn!(snapshot.id = %id, %error, "failed to read references of pinned snapshot");
            Needs::Unknown
        });
        SharedPins::pin(&self.pins, id, needs)
    }

    /// Reads the objects that a snapshot references.
    fn needs(&self, id: &SnapshotId) -> Result<Needs, OpenError> {
        Ok(Needs::of(&self.manifest(id)?))
    }

    /// Disables removal, also of snapshots whose pins are dropped later.
    pub fn close(&self) {
        self.pins.close();
    }
}
