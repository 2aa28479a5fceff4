//! Freezes and thaws file systems.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{errno::Errno, libc};

/// `_IOWR('X', 119, int)` of `linux/fs.h`.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
/// `_IOWR('X', 120, int)` of `linux/fs.h`.
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Syncs a file system and blocks writes to it until [`thaw`]. Succeeds if it is frozen already.
pub(crate) fn freeze(disk: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: FIFREEZE takes no argument; the kernel ignores the value.
    let rc = unsafe { libc::ioctl(disk.as_raw_fd(), FIFREEZE, 0) };
    match Errno::result(rc) {
        Ok(_) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Unblocks writes to a file system. Succeeds if it is not frozen.
pub(crate) fn thaw(disk: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: FITHAW takes no argument; the kernel ignores the value.
    let rc = unsafe { libc::ioctl(disk.as_raw_fd(), FITHAW, 0) };
    match Errno::result(rc) {
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
