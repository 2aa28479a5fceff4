//! The root disk, which the host can have frozen while it takes a snapshot.
//!
//! There is one thread: if it wrote to a disk that is frozen, it would wait for a thaw that only it can do. So whatever
//! writes on a caller's behalf waits for [`Disk::writable`] first.

use std::{cell::RefCell, fs::File, io, os::fd::AsFd, path::PathBuf};

use rustix::fs::syncfs;
use tokio::sync::Notify;

use crate::sys;

/// The disk, and whether it is frozen.
#[derive(Debug)]
pub(crate) struct Disk {
    path: Option<PathBuf>,
    /// Open for as long as it is frozen.
    frozen: RefCell<Option<File>>,
    thawed: Notify,
}

/// A disk that could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("this agent was given no disk to freeze")]
    None,
    #[error("open the disk")]
    Open(#[source] io::Error),
    #[error("write what is not on the disk yet")]
    Sync(#[source] io::Error),
    #[error("freeze the disk")]
    Freeze(#[source] io::Error),
    #[error("thaw the disk")]
    Thaw(#[source] io::Error),
}

impl Disk {
    /// The file system that `path` is on.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            frozen: RefCell::default(),
            thawed: Notify::new(),
        }
    }

    /// Writes everything to the disk and lets nothing be written until it is thawed. Frozen already, it stays so.
    pub(crate) fn freeze(&self) -> Result<(), DiskError> {
        if self.frozen.borrow().is_some() {
            return Ok(());
        }
        let disk = self.open()?;
        syncfs(&disk).map_err(|error| DiskError::Sync(error.into()))?;
        sys::freeze(disk.as_fd()).map_err(DiskError::Freeze)?;
        *self.frozen.borrow_mut() = Some(disk);
        Ok(())
    }

    /// Lets it be written to again. Not frozen, it stays so.
    pub(crate) fn thaw(&self) -> Result<(), DiskError> {
        let disk = match self.frozen.borrow_mut().take() {
            Some(disk) => disk,
            None => self.open()?,
        };
        if let Err(error) = sys::thaw(disk.as_fd()) {
            *self.frozen.borrow_mut() = Some(disk);
            return Err(DiskError::Thaw(error));
        }
        self.thawed.notify_waiters();
        Ok(())
    }

    /// Whether it is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.borrow().is_some()
    }

    /// Returns when it can be written to. True until the caller waits for something else.
    pub(crate) async fn writable(&self) {
        loop {
            let thawed = self.thawed.notified();
            if !self.is_frozen() {
                return;
            }
            thawed.await;
        }
    }

    fn open(&self) -> Result<File, DiskError> {
        let path = self.path.as_ref().ok_or(DiskError::None)?;
        File::open(path).map_err(DiskError::Open)
    }
}
