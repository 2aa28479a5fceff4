//! The lock on a data directory.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::StartError;

/// Locks the data directory for this process, until the process ends.
pub(super) fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join("lock");
    let data_dir = |source| StartError::DataDir {
        path: path.clone(),
        source,
    };
    let file = File::create(&path).map_err(data_dir)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(data_dir(source)),
    }
}
