//! The client's side of a request, beside Pingora's session.
//!
//! Pingora owns its sessions and blocks in its own loops while a request waits or streams. The edge keeps a second handle
//! on the socket, by which it notices that the client disconnected, bounds the time and size of a request head, and
//! resets the connection or the HTTP/2 stream at any time.

mod connection;
mod socket;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use error_chain::chain;
use tokio::sync::watch;
use tracing::debug;

pub(crate) use self::{
    connection::{ClientConnection, HeadLimits},
    socket::Socket,
};

tokio::task_local! {
    static CLIENT: Client;
}

/// The client of a task.
#[derive(Debug, Clone)]
pub(crate) enum Client {
    /// An HTTP/1.1 connection: one request at a time.
    Connection(Arc<ClientConnection>),
    /// One stream of an HTTP/2 connection.
    Stream(Arc<H2Stream>),
}

/// A stream of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct H2Stream {
    reset: watch::Sender<bool>,
    is_cancelled: AtomicBool,
}

impl Client {
    /// Creates the client of an HTTP/2 stream, and a receiver that becomes true when the stream must be reset.
    pub(crate) fn stream() -> (Self, watch::Receiver<bool>) {
        let (reset, receiver) = watch::channel(false);
        let stream = H2Stream {
            reset,
            is_cancelled: AtomicBool::new(false),
        };
        (Self::Stream(Arc::new(stream)), receiver)
    }

    /// Runs `serve` as the task of this client.
    pub(crate) async fn scope<F: Future>(self, serve: F) -> F::Output {
        CLIENT.scope(self, serve).await
    }

    /// Returns the client of the current task.
    pub(crate) fn current() -> Option<Self> {
        CLIENT.try_with(Self::clone).ok()
    }

    /// Records that the head of the request was read.
    pub(crate) fn head_complete(&self) {
        if let Self::Connection(connection) = self {
            connection.head_complete();
        }
    }

    /// Completes when the client has closed its connection, or its sending half. Never completes for a stream, whose end
    /// its session reports.
    pub(crate) async fn disconnected(&self) {
        if let Self::Connection(connection) = self {
            match connection.disconnected().await {
                Ok(()) => return,
                // The request then runs to its end even without its client.
                Err(error) => {
                    debug!(error = %chain(&error), "failed to watch client connection");
                }
            }
        }
        std::future::pending::<()>().await;
    }

    /// Resets the connection or the stream. The client gets a reset rather than a clean end; local readers and writers
    /// get an error.
    pub(crate) fn reset(&self) {
        match self {
            Self::Connection(connection) => connection.reset(),
            Self::Stream(stream) => drop(stream.reset.send_replace(true)),
        }
    }

    /// Records that the client reset its stream.
    pub(crate) fn mark_cancelled(&self) {
        if let Self::Stream(stream) = self {
            stream.is_cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the client reset its stream.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.is_cancelled.load(Ordering::Relaxed))
    }
}
