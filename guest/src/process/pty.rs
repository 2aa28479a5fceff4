//! Pseudoterminals for processes.

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

/// The size of a terminal whose caller gives none.
const DEFAULT_COLUMNS: u16 = 80;
const DEFAULT_ROWS: u16 = 24;

/// The controlling side of a pseudoterminal. The terminal side closes when the last process that uses it exits.
#[derive(Debug)]
pub(super) struct Pty(AsyncFd<OwnedFd>);

impl Pty {
    /// Opens a pseudoterminal, and returns both sides.
    pub(super) fn open(size: Winsize) -> io::Result<(Self, OwnedFd)> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&controller)?;
        let terminal = ioctl_tiocgptpeer(
            &controller,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        tcsetwinsize(&controller, size)?;
        fcntl_setfl(&controller, fcntl_getfl(&controller)? | OFlags::NONBLOCK)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        Ok((Self(sys::async_fd(controller, both)?), terminal))
    }

    /// Reads available output; 0 when no process has the terminal open.
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

/// Converts the size of a request, clamped to the range of a terminal.
pub(crate) fn window_size(pty: &PTY) -> Winsize {
    let clamp = |value: u32, default| match u16::try_from(value) {
        Ok(0) => default,
        Ok(value) => value,
        Err(_) => u16::MAX,
    };
    Winsize {
        ws_col: clamp(pty.size.cols, DEFAULT_COLUMNS),
        ws_row: clamp(pty.size.rows, DEFAULT_ROWS),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
