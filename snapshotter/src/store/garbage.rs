//! Removal of snapshots and images that nothing references.

use std::{fs, io, path::Path};

use pool_api::SnapshotId;
use tracing::warn;

use super::{Store, StoreError, staging_dir::StagingDir};
use crate::Digest;

impl Store {
    /// Removes the snapshots that lost their last reference since the last call; returns their number. The cost does not
    /// depend on the number of snapshots on the host. Blocks.
    pub fn collect(&self) -> Result<usize, StoreError> {
        self.resolve_unknown()?;
        let mut result = Ok(());
        let mut removed = 0;
        for id in self.pins.begin_removal() {
            let unlinked = self.unlink(&self.path(&id));
            self.pins.end_removal(&id);
            match unlinked.and_then(|trash| trash.map_or(Ok(0), |trash| remove(&trash).map(|()| 1)))
            {
                Ok(count) => removed += count,
                Err(error) => {
                    self.pins.suspect([id]);
                    result = Err(error);
                }
            }
        }
        if let Err(source) = self.sweep_staging() {
            let path = self.staging_dir();
            result = result.and(Err(StoreError::Remove { path, source }));
        }
        result.map(|()| removed)
    }

    /// Removes every snapshot and base image that nothing references; returns the number of snapshots. Blocks.
    pub fn collect_all(&self) -> Result<usize, StoreError> {
        self.pins.suspect(self.existing()?);
        let removed = self.collect()?;
        if let Some(referenced) = self.pins.referenced_bases() {
            let dir = self.bases_dir();
            for name in names(&dir).map_err(prepare(&dir))? {
                let known = name
                    .parse()
                    .is_ok_and(|digest: Digest| referenced.contains(&digest));
                if !known {
                    remove_file(&dir.join(name))?;
                }
            }
        }
        Ok(removed)
    }

    /// Protects every snapshot that exists: an object that cannot be read may reference it. They are kept until the store
    /// is opened again. Blocks.
    pub fn protect_existing(&self) -> Result<(), StoreError> {
        self.pins.protect(self.existing()?);
        Ok(())
    }

    /// Reads references that were unreadable when their snapshot was pinned.
    fn resolve_unknown(&self) -> Result<(), StoreError> {
        for id in self.pins.unknown() {
            match self.needs(&id) {
                Ok(needs) => self.pins.resolve(&id, &needs),
                Err(error) => {
                    let error = error_chain::chain(&error);
                    warn!(snapshot.id = %id, %error, "failed to read references of pinned snapshot");
                    self.protect_existing()?;
                }
            }
        }
        Ok(())
    }

    fn existing(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let dir = self.snapshots_dir();
        let names = names(&dir).map_err(prepare(&dir))?;
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// Moves a snapshot into `staging`; `None` when it does not exist.
    fn unlink(&self, path: &Path) -> Result<Option<StagingDir>, StoreError> {
        let remove = |source| StoreError::Remove {
            path: path.to_owned(),
            source,
        };
        let trash = self.staging("removed-").map_err(remove)?;
        match fs::rename(path, trash.path().join("snapshot")) {
            Ok(()) => Ok(Some(trash)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(remove(error)),
        }
    }
}

fn names(dir: &Path) -> io::Result<impl Iterator<Item = String>> {
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    let names = entries.into_iter().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.into_string().ok()))
}

fn prepare(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Prepare {
        path: path.to_owned(),
        source,
    }
}

fn remove(trash: &StagingDir) -> Result<(), StoreError> {
    fs::remove_dir_all(trash.path()).map_err(|source| StoreError::Remove {
        path: trash.path().to_owned(),
        source,
    })
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Remove {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
