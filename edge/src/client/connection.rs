//! A client's TCP connection and the bounds of its request heads.

use std::{
    io,
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use error_chain::chain;
use tokio::{io::Interest, net::TcpStream, time::Instant};
use tracing::debug;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub(super) stream: TcpStream,
    head: Mutex<Head>,
    pub(super) limits: HeadLimits,
}

/// Bounds of a request head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// The time from its first byte to its last. The TLS handshake and the first head share it.
    pub(crate) timeout: Duration,
    /// Bytes on the wire.
    pub(crate) bytes: usize,
}

/// The progress of a request head.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The head was read; the following bytes are body or frames.
    pub(super) complete: bool,
    pub(super) bytes_read: usize,
    pub(super) deadline: Option<Instant>,
    /// Another task awaited readability, so the runtime may have lost the socket's readiness.
    pub(super) readiness_consumed: bool,
}

impl ClientConnection {
    pub(crate) fn new(stream: TcpStream, limits: HeadLimits) -> Self {
        let head = Head {
            deadline: Some(Instant::now() + limits.timeout),
            ..Head::default()
        };
        Self {
            stream,
            head: Mutex::new(head),
            limits,
        }
    }

    /// Records that the following bytes are the head of a new request.
    pub(crate) fn expect_head(&self) {
        let mut head = self.head();
        *head = Head {
            readiness_consumed: head.readiness_consumed,
            ..Head::default()
        };
    }

    /// Records that the head was read. The following bytes are not bounded here.
    pub(crate) fn head_complete(&self) {
        self.head().complete = true;
    }

    pub(super) fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when the client has closed its connection, or its sending half.
    pub(super) async fn disconnected(&self) -> io::Result<()> {
        self.head().readiness_consumed = true;
        loop {
            if self
                .stream
                .ready(Interest::READABLE)
                .await?
                .is_read_closed()
            {
                return Ok(());
            }
            // More bytes of the request arrived. `WouldBlock` rearms the edge-triggered readiness; the reader of the
            // socket does not rely on it.
            let rearmed: io::Result<()> = self
                .stream
                .try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
            drop(rearmed);
        }
    }

    /// Resets the connection.
    pub(super) fn reset(&self) {
        if let Err(error) = rustix::net::connect_unspec(self.stream.as_fd()) {
            debug!(error = %chain(&error), "failed to reset client connection");
        }
    }
}
