//! The host's end of things: what it asks, and what it is told.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use vmm_api::wire::{MESSAGE_LIMIT, Reply, Request, decode, encode};

use crate::sys::packet;

/// The socket to the host. vCPU threads speak over it, too: a packet is whole or not there.
#[derive(Debug)]
pub(crate) struct Host {
    socket: OwnedFd,
}

impl Host {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next request with its descriptors; `None` when the host is gone.
    pub(super) fn receive(&self) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_LIMIT];
        loop {
            match packet::receive(&self.socket, &mut bytes) {
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

    /// Tells the host something.
    pub(crate) fn say(&self, reply: &Reply) -> io::Result<()> {
        Ok(packet::send(&self.socket, &encode(reply), &[])?)
    }

    /// Tells the host something and hands it a descriptor.
    pub(super) fn hand(&self, reply: &Reply, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(packet::send(&self.socket, &encode(reply), &[fd])?)
    }
}
