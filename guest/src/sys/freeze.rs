//! Keeping a file system from being written to.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{errno::Errno, libc};

/// `_IOWR('X', 119, int)` of `linux/fs.h`.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
/// `_IOWR('X', 120, int)` of `linux/fs.h`.
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Writes what is not written yet and lets nothing be written until [`thaw`]. One that is frozen already stays so.
pub(crate) fn freeze(disk: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: FIFREEZE takes no argument; the kernel does not look at what is passed.
    let rc = unsafe { libc::ioctl(disk.as_raw_fd(), FIFREEZE, 0) };
    match Errno::result(rc) {
        Ok(_) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Lets it be written to again. One that is not frozen stays so.
pub(crate) fn thaw(disk: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: FITHAW takes no argument; the kernel does not look at what is passed.
    let rc = unsafe { libc::ioctl(disk.as_raw_fd(), FITHAW, 0) };
    match Errno::result(rc) {
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
