//! Directories below `staging`.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::Store;

/// The paths in use.
pub(crate) type InUse = Arc<Mutex<HashSet<PathBuf>>>;

/// A directory below `staging`, removed when dropped. If that fails, [`Store::collect`] removes it later.
#[derive(Debug)]
pub(crate) struct StagingDir {
    path: PathBuf,
    in_use: InUse,
    moved: bool,
}

impl StagingDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Records that the directory was renamed to its place.
    pub(crate) fn moved(mut self) {
        self.moved = true;
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        if !self.moved {
            // A collection repeats what fails.
            drop(fs::remove_dir_all(&self.path));
        }
        self.in_use.lock().remove(&self.path);
    }
}

impl Store {
    /// Creates a directory below `staging`.
    pub(crate) fn staging(&self, prefix: &str) -> io::Result<StagingDir> {
        // Under the lock, so that a collection does not see it before it is in use.
        let mut in_use = self.staging_in_use.lock();
        let dir = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(self.staging_dir())?;
        let path = dir.keep();
        in_use.insert(path.clone());
        Ok(StagingDir {
            path,
            in_use: Arc::clone(&self.staging_in_use),
            moved: false,
        })
    }

    /// Removes what is below `staging` and not in use.
    pub(crate) fn sweep_staging(&self) -> io::Result<()> {
        let in_use = self.staging_in_use.lock();
        let mut abandoned = Vec::new();
        for entry in fs::read_dir(self.staging_dir())? {
            let entry = entry?;
            // Files are images that are imported.
            if entry.file_type()?.is_dir() && !in_use.contains(&entry.path()) {
                abandoned.push(entry.path());
            }
        }
        drop(in_use);
        abandoned.iter().try_for_each(fs::remove_dir_all)
    }
}
