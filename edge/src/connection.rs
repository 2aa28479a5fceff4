//! One connection of a client, from its handshake to its end.

mod streams;

use std::{net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use pingora::{
    apps::HttpServerApp,
    listeners::tls::Acceptor,
    protocols::{
        ALPN, GetSocketDigest, SocketDigest, Ssl, Stream,
        http::ServerSession,
        l4::{stream::Stream as Layer4, virt::VirtualSocketStream},
    },
    proxy::HttpProxy,
};
use tokio::{net::TcpStream, sync::watch};
use tracing::{debug, warn};

use crate::{
    client::{Client, HeadLimits, Link, Socket},
    config::Limits,
    metrics::Metrics,
    proxy::Proxy,
};

/// What every connection is served with.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) proxy: Arc<HttpProxy<Proxy>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    /// What makes TLS of it, if anything.
    pub(crate) acceptor: Option<Arc<Acceptor>>,
    /// Whether the edge closes.
    pub(crate) closed: watch::Receiver<bool>,
}

/// What may be read with a head and is not of it: a handshake, and a body's beginning that came in the same piece.
const BESIDE_HEAD: usize = 128 << 10;
/// How long what is left of a request's body is read, so that the connection can be used again.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves a connection to its end.
pub(crate) async fn serve(server: Server, socket: TcpStream, peer: SocketAddr) {
    let _present = server.metrics.connection(server.acceptor.is_some());
    if let Err(error) = socket.set_nodelay(true) {
        return warn!(%error, %peer, "could not set up a connection");
    }
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    if digest.peer_addr.set(Some(peer.into())).is_err() {
        return warn!(%peer, "could not note a peer");
    }
    let limits = HeadLimits {
        time: server.limits.head_time,
        bytes: server.limits.head_bytes.saturating_add(BESIDE_HEAD),
    };
    let link = Arc::new(Link::new(socket, limits));
    let socket = VirtualSocketStream::new(Box::new(Socket::new(link.clone())));
    let mut stream = Layer4::from(socket);
    stream.set_socket_digest(digest);
    match &server.acceptor {
        None => serve_h1(server, Box::new(stream), link).await,
        Some(acceptor) => match acceptor.tls_handshake(stream).await {
            Ok(stream) if stream.selected_alpn_proto() == Some(ALPN::H2) => {
                streams::serve(server, Box::new(stream), link).await;
            }
            Ok(stream) => serve_h1(server, Box::new(stream), link).await,
            Err(error) => debug!(%error, %peer, "a TLS handshake failed"),
        },
    }
}

/// Serves one request after the other.
async fn serve_h1(server: Server, stream: Stream, link: Arc<Link>) {
    let idle = server.limits.idle_connection.as_secs().max(1);
    let client = Client::Connection(link.clone());
    let serve = async {
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(idle));
        loop {
            // For each request again: a session keeps nothing but the time it is kept for.
            session.set_read_timeout(Some(server.limits.idle_stream));
            session.set_write_timeout(Some(server.limits.idle_stream));
            session.set_total_drain_timeout(Some(DRAIN));
            let served = server.proxy.process_new_http(session, &server.closed).await;
            let Some((stream, settings)) = served.map(|served| served.consume()) else {
                return;
            };
            link.await_head();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    };
    client.scope(serve).await;
}
