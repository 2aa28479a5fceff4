//! The client's end of a connection, beside Pingora's.
//!
//! Pingora owns its sessions and is deep in its own loops while a request waits or streams. Here the edge keeps a hold on
//! the socket as well: it sees that the client hung up, bounds the time and size of a request's head, and resets the
//! connection, or the one HTTP/2 stream, whatever Pingora is doing.

mod socket;

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{io::Interest, net::TcpStream, sync::watch, time::Instant};
use tracing::debug;

pub(crate) use self::socket::Socket;

tokio::task_local! {
    static CLIENT: Client;
}

/// Whom this task serves.
#[derive(Debug, Clone)]
pub(crate) enum Client {
    /// A connection that carries one request at a time.
    Connection(Arc<Link>),
    /// One stream of an HTTP/2 connection.
    Stream(Arc<Thread>),
}

/// A stream of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Thread {
    reset: watch::Sender<bool>,
    cancelled: AtomicBool,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    head: Mutex<Head>,
    limits: HeadLimits,
}

/// What the head of a request may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// From its first byte to its last; the TLS handshake and the first head together.
    pub(crate) time: Duration,
    /// Bytes on the wire.
    pub(crate) bytes: usize,
}

/// Where the reading of a head is.
#[derive(Debug, Default)]
struct Head {
    /// The request is in hand; what comes now is its body, or frames.
    in_hand: bool,
    taken: usize,
    deadline: Option<Instant>,
    /// Somebody else waited for the socket to become readable, so the runtime may not know that it is.
    watched: bool,
}

// === impl Client ===

impl Client {
    /// A stream of an HTTP/2 connection, and who is told when it is to be reset.
    pub(crate) fn stream() -> (Self, watch::Receiver<bool>) {
        let (reset, told) = watch::channel(false);
        let thread = Thread {
            reset,
            cancelled: AtomicBool::new(false),
        };
        (Self::Stream(Arc::new(thread)), told)
    }

    /// Runs `serve` as the task of this client.
    pub(crate) async fn scope<F: Future>(self, serve: F) -> F::Output {
        CLIENT.scope(self, serve).await
    }

    /// The client of the present task, if it serves one.
    pub(crate) fn current() -> Option<Self> {
        CLIENT.try_with(Self::clone).ok()
    }

    /// A request's head was read.
    pub(crate) fn head_in_hand(&self) {
        if let Self::Connection(link) = self {
            link.head_in_hand();
        }
    }

    /// Returns when the client has closed its end, or half of it. A stream's end is its session's to see.
    pub(crate) async fn hung_up(&self) {
        if let Self::Connection(link) = self {
            match link.closed().await {
                Ok(()) => return,
                // Without the watch a request merely waits to its end.
                Err(error) => debug!(%error, "could not watch a client"),
            }
        }
        std::future::pending::<()>().await;
    }

    /// Resets the connection or the stream: the client gets a reset, not a clean end, and whoever reads or writes here
    /// an error.
    pub(crate) fn reset(&self) {
        match self {
            Self::Connection(link) => link.reset(),
            Self::Stream(thread) => drop(thread.reset.send_replace(true)),
        }
    }

    /// The client itself reset the stream.
    pub(crate) fn note_cancelled(&self) {
        if let Self::Stream(thread) = self {
            thread.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it did.
    pub(crate) fn was_cancelled(&self) -> bool {
        matches!(self, Self::Stream(thread) if thread.cancelled.load(Ordering::Relaxed))
    }
}

// === impl Link ===

impl Link {
    pub(crate) fn new(stream: TcpStream, limits: HeadLimits) -> Self {
        let head = Head {
            deadline: Some(Instant::now() + limits.time),
            ..Head::default()
        };
        Self {
            stream,
            head: Mutex::new(head),
            limits,
        }
    }

    /// The next bytes are those of a new request's head.
    pub(crate) fn await_head(&self) {
        let mut head = self.head();
        *head = Head {
            watched: head.watched,
            ..Head::default()
        };
    }

    /// The head was read; what comes now is not bounded here.
    pub(crate) fn head_in_hand(&self) {
        self.head().in_hand = true;
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn closed(&self) -> io::Result<()> {
        self.head().watched = true;
        loop {
            if self
                .stream
                .ready(Interest::READABLE)
                .await?
                .is_read_closed()
            {
                return Ok(());
            }
            // More of the request came. Saying that there is nothing to read arms the edge-triggered watch again; the
            // socket's reader looks for itself.
            let nothing: io::Result<()> = self
                .stream
                .try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
            drop(nothing);
        }
    }

    fn reset(&self) {
        if let Err(error) = rustix::net::connect_unspec(self.stream.as_fd()) {
            debug!(%error, "could not reset a connection");
        }
    }
}
