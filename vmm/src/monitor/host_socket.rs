//! Socket to the host.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use vmm_api::wire::{MESSAGE_LIMIT, Reply, Request, decode, encode};

use crate::sys::seqpacket;

/// Socket to the host. vCPU threads send on it as well; each packet is sent atomically.
#[derive(Debug)]
pub(super) struct HostSocket {
    socket: OwnedFd,
    /// Orders the reply to a request that starts the guest before the report of the guest's end.
    start: Mutex<()>,
}

impl HostSocket {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            start: Mutex::new(()),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives the next request and its descriptors; `None` if the host closed the socket.
    pub(super) fn receive(&self) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_LIMIT];
        loop {
            match seqpacket::receive(&self.socket, &mut bytes) {
                Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Ok((len, fds)) => {
                    let request = decode(&bytes[..len]).map_err(io::Error::other)?;
                    return Ok(Some((request, fds)));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Holds back the report of the guest's end until the guard is dropped.
    pub(super) fn begin_start(&self) -> MutexGuard<'_, ()> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the end of the guest.
    pub(super) fn send_exit(&self, error: Option<String>) -> io::Result<()> {
        drop(self.begin_start());
        self.send(&Reply::Exited { error })
    }

    /// Sends a message.
    pub(super) fn send(&self, reply: &Reply) -> io::Result<()> {
        Ok(seqpacket::send(&self.socket, &encode(reply), &[])?)
    }

    /// Sends a message with an attached descriptor.
    pub(super) fn send_with_fd(&self, reply: &Reply, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(seqpacket::send(&self.socket, &encode(reply), &[fd])?)
    }
}
