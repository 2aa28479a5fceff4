//! The client's end of a connection, beside Pingora's.
//!
//! Pingora owns the socket and is deep in its own loops while a request waits or streams. A duplicate of the descriptor
//! lets the edge see that the client hung up, and reset the connection at once, whatever Pingora is doing.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use tokio::{io::Interest, net::TcpStream};
use tracing::debug;

tokio::task_local! {
    static CLIENT: Client;
}

/// The connection of the client that this task serves.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: Arc<OwnedFd>,
}

impl Client {
    /// The client at the other end of `socket`.
    pub(crate) fn new(socket: &impl AsFd) -> io::Result<Self> {
        Ok(Self {
            socket: Arc::new(socket.as_fd().try_clone_to_owned()?),
        })
    }

    /// Runs `serve` as the task of this client.
    pub(crate) async fn scope<F: Future>(self, serve: F) -> F::Output {
        CLIENT.scope(self, serve).await
    }

    /// The client of the present task, if it serves one.
    pub(crate) fn current() -> Option<Self> {
        CLIENT.try_with(Self::clone).ok()
    }

    /// Returns when the client has closed its end, or half of it.
    pub(crate) async fn hung_up(&self) {
        match self.watch().await {
            Ok(()) => {}
            Err(error) => {
                // Without the watch a request merely waits to its end.
                debug!(%error, "could not watch a client");
                std::future::pending::<()>().await;
            }
        }
    }

    async fn watch(&self) -> io::Result<()> {
        let socket = TcpStream::from_std(self.socket.try_clone()?.into())?;
        loop {
            if socket.ready(Interest::READABLE).await?.is_read_closed() {
                return Ok(());
            }
            // More of the request came. Saying that there is nothing to read arms the edge-triggered watch again.
            let nothing: io::Result<()> =
                socket.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
            drop(nothing);
        }
    }

    /// Resets the connection: the client gets a RST, not a clean end, and whoever reads or writes here an error.
    pub(crate) fn reset(&self) {
        if let Err(error) = rustix::net::connect_unspec(self.socket.as_fd()) {
            debug!(%error, "could not reset a connection");
        }
    }
}
