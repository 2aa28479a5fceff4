//! Socket to the host.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use vmm_api::wire::{MESSAGE_LIMIT, Reply, Request, decode, encode};

use crate::sys::seqpacket;

/// Socket to the host. vCPU threads send on it as well; each packet is sent atomically.
#[derive(Debug)]
pub(super) struct HostSocket {
    socket: OwnedFd,
}

impl HostSocket {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
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

    /// Sends a message.
    pub(super) fn send(&self, reply: &Reply) -> io::Result<()> {
        Ok(seqpacket::send(&self.socket, &encode(reply), &[])?)
    }

    /// Sends a message with an attached descriptor.
    pub(super) fn send_with_fd(&self, reply: &Reply, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(seqpacket::send(&self.socket, &encode(reply), &[fd])?)
    }
}
