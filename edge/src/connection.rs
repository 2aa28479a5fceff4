//! One client connection from its handshake to its end.

mod context;
mod h1;
mod h2;

use std::{net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use error_chain::chain;
use pingora::protocols::{
    ALPN, GetSocketDigest, SocketDigest, Ssl,
    l4::{stream::Stream as Layer4, virt::VirtualSocketStream},
};
use tokio::net::TcpStream;
use tracing::{debug, warn};

use crate::{
    client::{ClientConnection, HeadLimits, Socket},
    metrics::Transport,
};

pub(crate) use self::context::ConnectionContext;

/// Bytes that a read of the head may return beyond it: a TLS handshake, and the start of a body in the same read.
const HEAD_OVERREAD: usize = 128 << 10;

/// The first bytes of a client that speaks HTTP/2 (RFC 9113 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The response to plain HTTP on the TLS port, with nginx's sentence.
const PLAIN_HTTP_RESPONSE: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 51\r\n\
    Connection: close\r\n\r\nThe plain HTTP request was sent to HTTPS port: 400\n";

/// Serves a connection to its end.
pub(crate) async fn serve(context: ConnectionContext, socket: TcpStream, peer: SocketAddr) {
    let transport = match context.acceptor {
        Some(_) => Transport::Tls,
        None => Transport::Plain,
    };
    let _open = context.metrics.connection(transport);
    if let Err(error) = socket.set_nodelay(true) {
        return warn!(error = %chain(&error), %peer, "failed to set TCP_NODELAY");
    }
    let protocol = match &context.acceptor {
        None => prior_knowledge(&context, &socket).await,
        Some(_) if refuses_plain_http(&context, &socket).await => None,
        // TLS negotiates it.
        Some(_) => Some(ALPN::H1),
    };
    let Some(protocol) = protocol else { return };
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    if digest.peer_addr.set(Some(peer.into())).is_err() {
        return warn!(%peer, "failed to record peer address");
    }
    let limits = HeadLimits {
        timeout: context.limits.head_timeout,
        bytes: context.limits.head_bytes.saturating_add(HEAD_OVERREAD),
    };
    let connection = Arc::new(ClientConnection::new(socket, limits));
    let socket = VirtualSocketStream::new(Box::new(Socket::new(connection.clone())));
    let mut stream = Layer4::from(socket);
    stream.set_socket_digest(digest);
    match &context.acceptor {
        None if protocol == ALPN::H2 => h2::serve(context, Box::new(stream), connection).await,
        None => h1::serve(context, Box::new(stream), connection).await,
        Some(acceptor) => match acceptor.tls_handshake(stream).await {
            Ok(stream) if stream.selected_alpn_proto() == Some(ALPN::H2) => {
                h2::serve(context, Box::new(stream), connection).await;
            }
            Ok(stream) => h1::serve(context, Box::new(stream), connection).await,
            Err(error) => {
                debug!(error = %chain(error.as_ref()), %peer, "failed to complete TLS handshake");
            }
        },
    }
}

/// Returns the protocol that a client of the plain listener speaks: HTTP/2 starts with its preface (RFC 9113 3.3). `None`: it
/// sends nothing in time, or the gateway shuts down.
async fn prior_knowledge(context: &ConnectionContext, socket: &TcpStream) -> Option<ALPN> {
    let mut first = [0; HTTP2_PREFACE.len()];
    let mut shutdown = context.shutdown.clone();
    let peeked = tokio::select! {
        peeked = tokio::time::timeout(context.limits.head_timeout, socket.peek(&mut first)) => peeked,
        // An error means that the sender is dropped, which is a shutdown too.
        _ = shutdown.wait_for(|shutdown| *shutdown) => return None,
    };
    match peeked {
        Ok(Ok(len)) if len > 0 => Some(protocol_of(&first[..len])),
        _ => None,
    }
}

/// Returns the protocol that starts with these bytes. Three suffice: no method of HTTP/1.1 is `PRI`.
fn protocol_of(first: &[u8]) -> ALPN {
    if first.len() >= 3 && HTTP2_PREFACE.starts_with(first) {
        ALPN::H2
    } else {
        ALPN::H1
    }
}

/// Answers a client that speaks plain HTTP to the TLS port; returns whether it does.
async fn refuses_plain_http(context: &ConnectionContext, socket: &TcpStream) -> bool {
    let mut first = [0];
    let peeked = tokio::time::timeout(context.limits.head_timeout, socket.peek(&mut first)).await;
    // A TLS record starts with its type, 22; a request line with a method.
    if !matches!(peeked, Ok(Ok(1))) || !first[0].is_ascii_uppercase() {
        return false;
    }
    // The response fits into the empty send buffer; a client that has left needs none.
    if socket.writable().await.is_ok() {
        drop(socket.try_write(PLAIN_HTTP_RESPONSE));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_preface_differs_from_http1_methods() {
        for preface in [&HTTP2_PREFACE[..], b"PRI", b"PRI * HT"] {
            assert_eq!(protocol_of(preface), ALPN::H2);
        }
        for other in [
            &b"P"[..],
            b"PR",
            b"PUT / HTTP/1.1",
            b"PRINT / HTTP/1.1",
            b"GET",
        ] {
            assert_eq!(protocol_of(other), ALPN::H1);
        }
    }
}
