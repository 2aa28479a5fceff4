//! Descriptors that are waited for.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Lets the runtime wait for a descriptor, which must not block.
pub(crate) fn ready(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: register_with_interest asks that the descriptor is open and stays the same until it is dropped; an OwnedFd
    // owns one open descriptor, and nobody else can reach this one to close or replace it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(registered?)
}
