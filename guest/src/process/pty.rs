//! Terminals for processes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{messages::process::PTY, sys};

/// What a terminal has when its caller does not say.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// Our side of a terminal. The process's side is closed when the last process that has it is gone.
#[derive(Debug)]
pub(super) struct Pty(AsyncFd<OwnedFd>);

impl Pty {
    /// Opens a terminal of a size, and returns the process's side with it.
    pub(super) fn open(size: Winsize) -> io::Result<(Self, OwnedFd)> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&ours)?;
        let theirs = ioctl_tiocgptpeer(
            &ours,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        tcsetwinsize(&ours, size)?;
        fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        Ok((Self(sys::ready(ours, both)?), theirs))
    }

    /// Reads what there is; 0 when no process has the terminal any more.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), &mut *buffer)?));
            match read {
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?)) {
                Ok(Ok(len)) => bytes = bytes.get(len..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    pub(super) fn resize(&self, size: Winsize) -> io::Result<()> {
        Ok(tcsetwinsize(self.0.get_ref(), size)?)
    }
}

/// The size a caller wants; more than a terminal can have is the most it can.
pub(super) fn size(pty: &PTY) -> Winsize {
    let bound = |value: u32, default| match u16::try_from(value) {
        Ok(0) => default,
        Ok(value) => value,
        Err(_) => u16::MAX,
    };
    Winsize {
        ws_col: bound(pty.size.cols, COLUMNS),
        ws_row: bound(pty.size.rows, ROWS),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
