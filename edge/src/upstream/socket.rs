//! The descriptor of a connection into a guest, beside Pingora's stream.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use pingora::protocols::Digest;
use tracing::debug;

/// Shuts down a connection whatever Pingora is doing with it.
#[derive(Debug)]
pub(crate) struct UpstreamSocket {
    fd: OwnedFd,
    read_ahead_len: Arc<AtomicUsize>,
}

impl UpstreamSocket {
    pub(super) fn new(fd: OwnedFd, read_ahead_len: Arc<AtomicUsize>) -> Self {
        Self { fd, read_ahead_len }
    }

    /// Returns the socket of the connection that a digest describes.
    pub(crate) fn of(digest: Option<&Digest>) -> Option<Arc<Self>> {
        let proxy = digest?.proxy_digest.as_ref()?;
        proxy
            .user_data
            .as_ref()?
            .downcast_ref::<Arc<Self>>()
            .cloned()
    }

    /// Returns the number of bytes that were read ahead and not consumed yet.
    pub(crate) fn read_ahead_len(&self) -> usize {
        self.read_ahead_len.load(Ordering::Relaxed)
    }

    /// Ends the connection: readers reach its end, writers get an error.
    pub(crate) fn shutdown(&self) {
        if let Err(error) = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both) {
            debug!(error = %error_chain::chain(&error), "failed to shut down upstream connection");
        }
    }
}
