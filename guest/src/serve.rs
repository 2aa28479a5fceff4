//! Listening, on vsock and on TCP.

use std::{convert::Infallible, io, rc::Rc, time::Duration};

use guest_api::{AGENT_VSOCK_PORT, HOST_VSOCK_PORT, RELAY_VSOCK_PORT};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tracing::{debug, warn};

use crate::{Agent, Peer, relay};

/// How long to wait when no connection can be accepted, for want of descriptors or memory.
const RESPITE: Duration = Duration::from_millis(100);

/// Serves the agent on a TCP listener. Never returns.
pub async fn tcp(agent: Rc<Agent>, listener: TcpListener, peer: Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stream = prompt(stream);
                spawn_local(connection(Rc::clone(&agent), stream, peer));
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
                    spawn_local(connection(Rc::clone(&agent), stream, Peer::Other));
                }
                Err(error) => respite(&error).await,
            },
            accepted = relays.accept() => match accepted {
                Ok((stream, _)) => {
                    spawn_local(async move {
                        if let Err(error) = relay::serve(stream).await {
                            debug!(%error, "a relayed stream broke");
                        }
                    });
                }
                Err(error) => respite(&error).await,
            },
        }
    }
}

/// Serves one connection to its end.
async fn connection<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    agent: Rc<Agent>,
    stream: S,
    peer: Peer,
) {
    let service = service_fn(move |request| {
        let agent = Rc::clone(&agent);
        async move { Ok::<_, Infallible>(agent.answer(peer, request).await) }
    });
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection broke");
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
