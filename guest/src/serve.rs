//! Listening, on vsock and on TCP.
//!
//! Callers can be many and mean harm. Their connections are bounded at each door, and what is kept of each is too: a
//! request's head by [`MAX_HEAD`], a connection without a request by [`IDLE`]. The host has a door of its own.

mod begun;

use std::{cell::Cell, convert::Infallible, io, rc::Rc, time::Duration};

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
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tracing::{debug, warn};

use self::begun::Begun;
use crate::{Agent, Peer, relay};

/// How long to wait when no connection can be accepted, for want of descriptors or memory.
const RESPITE: Duration = Duration::from_millis(100);

/// Most connections of callers that are open at a door; more are closed at once.
const MAX_CALLERS: usize = 2048;
/// Most bytes of a request's head, and of a body that are read ahead.
const MAX_HEAD: usize = 64 * 1024;
/// The same in HTTP/2, where it is counted unpacked.
const MAX_HEAD_2: u32 = 64 * 1024;
/// Most requests at once on a connection of HTTP/2.
const MAX_STREAMS: u32 = 256;
/// How long a connection may be without a whole head of a request: that of E2B's agent.
const IDLE: Duration = Duration::from_secs(640);

/// How many have come through a door and not left.
#[derive(Debug, Default)]
struct Door(Rc<Cell<usize>>);

/// One of them.
#[derive(Debug)]
struct Guest(Rc<Cell<usize>>);

/// Serves the agent on a TCP listener. Never returns.
pub async fn tcp(agent: Rc<Agent>, listener: TcpListener, peer: Peer) {
    let door = Door::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(guest) = door.enter() else { continue };
                let served = connection(Rc::clone(&agent), prompt(stream), peer);
                spawn_local(guest.until(served));
            }
            Err(error) => respite(&error).await,
        }
    }
}

/// Serves the agent and the relay on this guest's vsock ports. Returns only an error of binding them.
pub async fn vsock(agent: Rc<Agent>) -> io::Result<Infallible> {
    let host = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, HOST_VSOCK_PORT))?;
    let calls = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, AGENT_VSOCK_PORT))?;
    let relays = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, RELAY_VSOCK_PORT))?;
    let (call_door, relay_door) = (Door::default(), Door::default());
    loop {
        tokio::select! {
            accepted = host.accept() => match accepted {
                Ok((stream, _)) => {
                    spawn_local(connection(Rc::clone(&agent), stream, Peer::Host));
                }
                Err(error) => respite(&error).await,
            },
            accepted = calls.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(guest) = call_door.enter() {
                        let served = connection(Rc::clone(&agent), stream, Peer::Other);
                        spawn_local(guest.until(served));
                    }
                }
                Err(error) => respite(&error).await,
            },
            accepted = relays.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(guest) = relay_door.enter() {
                        spawn_local(guest.until(relayed(stream)));
                    }
                }
                Err(error) => respite(&error).await,
            },
        }
    }
}

/// Serves one connection to its end, in the HTTP that its caller speaks.
async fn connection<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    agent: Rc<Agent>,
    stream: S,
    peer: Peer,
) {
    let service = service_fn(move |request| {
        let agent = Rc::clone(&agent);
        async move { Ok::<_, Infallible>(agent.answer(peer, request).await) }
    });
    let (stream, is_two) = match timeout(IDLE, Begun::read(stream)).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => return debug!(%error, "a connection broke"),
        Err(_) => return debug!("a connection said nothing"),
    };
    let stream = TokioIo::new(stream);
    let served = if is_two {
        http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_2)
            .keep_alive_interval(IDLE)
            .serve_connection(stream, service)
            .await
    } else {
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(MAX_HEAD)
            .serve_connection(stream, service)
            .await
    };
    if let Err(error) = served {
        debug!(%error, "a connection broke");
    }
}

/// Runs what HTTP/2 does beside a connection on this thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, work: F) {
        spawn_local(async move {
            work.await;
        });
    }
}

async fn relayed<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    if let Err(error) = relay::serve(stream).await {
        debug!(%error, "a relayed stream broke");
    }
}

// === impl Door ===

impl Door {
    /// Lets one in; `None` when there is no room.
    fn enter(&self) -> Option<Guest> {
        let inside = self.0.get();
        if inside >= MAX_CALLERS {
            debug!(inside, "closed a connection for want of room");
            return None;
        }
        self.0.set(inside + 1);
        Some(Guest(Rc::clone(&self.0)))
    }
}

impl Guest {
    /// Stays inside until `visit` is over.
    async fn until(self, visit: impl Future<Output = ()>) {
        visit.await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Without waiting for more to send; a stream that cannot be told so works all the same.
fn prompt(stream: TcpStream) -> TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "could not set TCP_NODELAY");
    }
    stream
}

async fn respite(error: &io::Error) {
    warn!(%error, "could not accept a connection");
    tokio::time::sleep(RESPITE).await;
}
