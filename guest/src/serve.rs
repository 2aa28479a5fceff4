//! Serves the agent and the relay on vsock and TCP listeners.
//!
//! Clients are untrusted: their connections are limited per listener (`MAX_CONNECTIONS`), as are the head of a request
//! (`MAX_HEAD_LEN`) and the time without a complete head (`HEAD_TIMEOUT`). The host has its own listener.

mod rewind;

use std::{cell::Cell, convert::Infallible, io, rc::Rc, time::Duration};

use error_chain::chain;
use guest_api::{AGENT_VSOCK_PORT, HOST_VSOCK_PORT, RELAY_VSOCK_PORT};
use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::timeout,
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use tracing::{debug, warn};

use self::rewind::{Protocol, Rewind};
use crate::{
    relay,
    router::{self, Peer},
    state::AgentState,
};

/// The pause after a failed accept, which usually means a lack of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The most open connections of a listener for clients. Further ones are closed at once.
const MAX_CONNECTIONS: usize = 2048;
/// The longest head of an HTTP/1 request. It also bounds how much of a body is read ahead.
const MAX_HEAD_LEN: usize = 64 * 1024;
/// The longest header list of an HTTP/2 request, uncompressed.
const MAX_H2_HEADER_LIST: u32 = 64 * 1024;
/// The most concurrent streams of an HTTP/2 connection.
const MAX_H2_STREAMS: u32 = 256;
/// The longest time that a connection may be without a complete request head, as in E2B's agent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(640);

/// Limits the open connections of a listener to [`MAX_CONNECTIONS`].
#[derive(Debug, Default)]
struct ConnectionLimit(Rc<Cell<usize>>);

/// Holds one connection slot; dropping it frees the slot.
#[derive(Debug)]
struct ConnectionGuard(Rc<Cell<usize>>);

/// Serves the agent on a TCP listener. Never returns.
pub async fn tcp(state: Rc<AgentState>, listener: TcpListener, peer: Peer) {
    let limit = ConnectionLimit::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(guard) = limit.try_acquire() else {
                    continue;
                };
                set_nodelay(&stream);
                let connection = serve_http(Rc::clone(&state), stream, peer);
                spawn_local(guard.hold_during(connection));
            }
            Err(error) => accept_backoff(&error).await,
        }
    }
}

/// Serves the agent and the relay on the guest's vsock ports. Returns only if a port cannot be bound.
pub async fn vsock(state: Rc<AgentState>) -> io::Result<Infallible> {
    let host = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, HOST_VSOCK_PORT))?;
    let clients = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, AGENT_VSOCK_PORT))?;
    let relays = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, RELAY_VSOCK_PORT))?;
    let host_limit = ConnectionLimit::default();
    let client_limit = ConnectionLimit::default();
    let relay_limit = ConnectionLimit::default();
    loop {
        tokio::select! {
            (stream, guard) = accept_host(&host, &host_limit) => {
                let connection = serve_http(Rc::clone(&state), stream, Peer::Host);
                spawn_local(guard.hold_during(connection));
            }
            (stream, guard) = accept_host(&clients, &client_limit) => {
                let connection = serve_http(Rc::clone(&state), stream, Peer::Other);
                spawn_local(guard.hold_during(connection));
            }
            (stream, guard) = accept_host(&relays, &relay_limit) => {
                spawn_local(guard.hold_during(serve_relay(stream)));
            }
        }
    }
}

/// Accepts the next connection of the host within the limit. Connections of processes in the guest, which reach a vsock
/// port through the guest's own or the loopback address, are closed.
async fn accept_host(
    listener: &VsockListener,
    limit: &ConnectionLimit,
) -> (VsockStream, ConnectionGuard) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if is_host(peer) => {
                if let Some(guard) = limit.try_acquire() {
                    return (stream, guard);
                }
            }
            Ok((_, peer)) => warn!(cid = peer.cid(), "connection from inside the guest refused"),
            Err(error) => accept_backoff(&error).await,
        }
    }
}

fn is_host(peer: VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST
}

/// Serves one connection until it closes, in HTTP/1 or HTTP/2.
async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    state: Rc<AgentState>,
    stream: S,
    peer: Peer,
) {
    let service = service_fn(move |request| {
        let state = Rc::clone(&state);
        async move { Ok::<_, Infallible>(router::handle(&state, peer, request).await) }
    });
    let (stream, protocol) = match timeout(HEAD_TIMEOUT, Rewind::detect(stream)).await {
        Ok(Ok(detected)) => detected,
        Ok(Err(error)) => return debug!(error = %chain(&error), "connection failed"),
        Err(_) => return debug!("connection timed out without a request"),
    };
    let stream = TokioIo::new(stream);
    let served = match protocol {
        Protocol::Http1 => {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD_LEN)
                .serve_connection(stream, service)
                .await
        }
        Protocol::Http2 => {
            http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_H2_STREAMS)
                .max_header_list_size(MAX_H2_HEADER_LIST)
                .keep_alive_interval(HEAD_TIMEOUT)
                .serve_connection(stream, service)
                .await
        }
    };
    if let Err(error) = served {
        debug!(error = %chain(&error), "connection failed");
    }
}

/// Spawns the tasks of HTTP/2 connections on this thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, work: F) {
        spawn_local(async move {
            work.await;
        });
    }
}

async fn serve_relay<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    if let Err(error) = relay::serve(stream).await {
        debug!(error = %chain(&error), "relayed stream failed");
    }
}

// === impl ConnectionLimit ===

impl ConnectionLimit {
    /// Takes a slot; `None` if all are in use.
    fn try_acquire(&self) -> Option<ConnectionGuard> {
        let open = self.0.get();
        if open >= MAX_CONNECTIONS {
            debug!(open, "connection limit reached, connection closed");
            return None;
        }
        self.0.set(open + 1);
        Some(ConnectionGuard(Rc::clone(&self.0)))
    }
}

impl ConnectionGuard {
    async fn hold_during(self, connection: impl Future<Output = ()>) {
        connection.await;
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Disables Nagle's algorithm. The stream works without it as well, so an error is only logged.
fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %chain(&error), "failed to set TCP_NODELAY");
    }
}

async fn accept_backoff(error: &io::Error) {
    warn!(error = %chain(error), "failed to accept connection");
    tokio::time::sleep(ACCEPT_BACKOFF).await;
}
