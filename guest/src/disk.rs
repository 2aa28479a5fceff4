//! Freezes and thaws the root disk, for disk-only snapshots.
//!
//! The agent has one thread: a write to the frozen disk would block it, and with it the thaw. Handlers that write must
//! therefore wait for [`Disk::writable`] first.

use std::{cell::RefCell, fs::File, io, os::fd::AsFd, path::PathBuf};

use rustix::fs::syncfs;
use tokio::sync::Notify;

use crate::sys;

/// The disk and its freeze state.
#[derive(Debug)]
pub(crate) struct Disk {
    path: Option<PathBuf>,
    /// Open while the disk is frozen.
    frozen: RefCell<Option<File>>,
    thawed: Notify,
}

/// An error freezing or thawing the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("no disk to freeze is configured")]
    NotConfigured,
    #[error("failed to open the disk")]
    Open(#[source] io::Error),
    #[error("failed to sync the disk")]
    Sync(#[source] io::Error),
    #[error("failed to freeze the disk")]
    Freeze(#[source] io::Error),
    #[error("failed to thaw the disk")]
    Thaw(#[source] io::Error),
}

impl Disk {
    /// Wraps the file system of `path`.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            frozen: RefCell::default(),
            thawed: Notify::new(),
        }
    }

    /// Syncs the disk and blocks writes until it is thawed. Does nothing if it is frozen already.
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

    /// Unblocks writes. Does nothing if the disk is not frozen.
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

    /// Returns whether the disk is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.borrow().is_some()
    }

    /// Waits until the disk is not frozen. Holds until the caller's next await.
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
        let path = self.path.as_ref().ok_or(DiskError::NotConfigured)?;
        File::open(path).map_err(DiskError::Open)
    }
}
