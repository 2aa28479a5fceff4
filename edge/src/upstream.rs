//! Step 8 of a request: the connection to a port of a guest, or to the API.
//!
//! Pingora pools connections under a key that ignores the connector. Every port of every epoch of every sandbox
//! therefore gets a `group_key` of its own.

mod read_ahead;
mod socket;

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType,
    connectors::L4Connect,
    http::ResponseHeader,
    protocols::{
        ALPN, GetProxyDigest,
        l4::{socket::SocketAddr, stream::Stream, virt::VirtualSocketStream},
        raw_connect::ProxyDigest,
    },
    proxy::Session,
    upstreams::peer::HttpPeer,
};
use pool_api::{DialError, Lease, Port};
use tokio::net::UnixStream;

use self::read_ahead::{ReadAheadBudget, ReadAheadStream};
use crate::{config::Config, framing, target::Address};

pub(crate) use self::socket::UpstreamSocket;

/// Delays between attempts to connect to a closed port: a service that has just started may not listen yet.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(400),
];

/// The longest request body that certainly fits into the buffers on its way.
const MAX_BUFFERED_BODY: u64 = 64 << 10;

/// Creates Pingora's peers.
#[derive(Debug)]
pub(crate) struct Upstreams {
    group_keys: RandomState,
    dial_timeout: Duration,
    keep_alive: Duration,
    read_ahead: Arc<ReadAheadBudget>,
}

/// A port of a guest to connect to.
#[derive(Debug)]
pub(crate) struct PeerSpec {
    /// The sandbox and the port.
    pub(crate) address: Address,
    /// The lease that permits the connection.
    pub(crate) lease: Arc<dyn Lease>,
    /// `true` if the port serves TLS.
    pub(crate) tls: bool,
    /// Receives the reason if the connection fails.
    pub(crate) dial_error: DialErrorSlot,
}

/// The reason why a connection into a guest failed.
pub(crate) type DialErrorSlot = Arc<OnceLock<DialError>>;

/// The use of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StreamMode {
    /// A request that fits into the buffers, then its response. The connection is reusable.
    Buffered,
    /// Request and response at the same time. The connection serves one request; Pingora never pools it.
    Streaming,
    /// gRPC: a stream of an HTTP/2 connection, which is reusable but carries one request at a time.
    Http2,
}

impl StreamMode {
    /// Returns the mode that a request needs.
    pub(crate) fn of(session: &mut Session) -> Self {
        if framing::is_grpc(session.req_header()) {
            return Self::Http2;
        }
        let headers = &session.req_header().headers;
        let length = framing::content_length(headers).ok().flatten();
        // An HTTP/2 request may have a body of any length without saying so.
        let is_large = match length {
            Some(length) => length > MAX_BUFFERED_BODY,
            None => !session.is_body_empty(),
        };
        if is_large || session.is_upgrade_req() {
            Self::Streaming
        } else {
            Self::Buffered
        }
    }
}

impl Upstreams {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            group_keys: RandomState::new(),
            dial_timeout: config.dial_timeout,
            keep_alive: config.keep_alive,
            read_ahead: Arc::new(ReadAheadBudget::new(config.limits.read_ahead)),
        }
    }

    /// Creates the peer for a port of a guest.
    pub(crate) fn sandbox(&self, spec: &PeerSpec, mode: StreamMode) -> Box<HttpPeer> {
        let PeerSpec { address, tls, .. } = spec;
        // A placeholder: the dialer ignores it. Before Pingora reuses a connection it compares this address with the
        // peer of the socket; the unspecified address matches any peer. The server name is part of the reuse key too.
        let placeholder = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port.get());
        let mut peer = HttpPeer::new(placeholder, *tls, address.sandbox.to_string());
        // The stream ends inside the guest in any case; a certificate would prove nothing more.
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
        let epoch = spec.lease.epoch();
        let key = (&address.sandbox, epoch, address.port, tls, mode);
        peer.group_key = self.group_keys.hash_one(key);
        if mode == StreamMode::Http2 {
            // In plain, Pingora speaks HTTP/2 by prior knowledge then.
            peer.options.alpn = ALPN::H2;
        }
        peer.options.custom_l4 = Some(Arc::new(Dialer {
            lease: spec.lease.clone(),
            port: address.port,
            error: spec.dial_error.clone(),
            mode,
            read_ahead: self.read_ahead.clone(),
        }));
        peer.options.total_connection_timeout = Some(self.dial_timeout);
        peer.options.idle_timeout = Some(self.keep_alive);
        Box::new(peer)
    }

    /// Creates the peer for the API.
    pub(crate) fn api(&self, socket: &Path) -> pingora::Result<Box<HttpPeer>> {
        let path = socket.to_str().ok_or_else(|| {
            Error::explain(
                ErrorType::InternalError,
                "the path of the API socket is not UTF-8",
            )
        })?;
        let mut peer = HttpPeer::new_uds(path, false, String::new())?;
        peer.options.total_connection_timeout = Some(self.dial_timeout);
        peer.options.idle_timeout = Some(self.keep_alive);
        Ok(Box::new(peer))
    }
}

#[derive(Debug)]
struct Dialer {
    lease: Arc<dyn Lease>,
    port: Port,
    error: DialErrorSlot,
    mode: StreamMode,
    read_ahead: Arc<ReadAheadBudget>,
}

impl Dialer {
    async fn dial(&self) -> Result<UnixStream, DialError> {
        for delay in BACKOFF {
            match self.lease.dial(self.port).await {
                Err(DialError::Closed(_)) => tokio::time::sleep(delay).await,
                dialed => return dialed,
            }
        }
        self.lease.dial(self.port).await
    }
}

#[async_trait]
impl L4Connect for Dialer {
    async fn connect(&self, _address: &SocketAddr) -> pingora::Result<Stream> {
        let dialed = tokio::select! {
            dialed = self.dial() => dialed,
            () = self.lease.revoked() => Err(DialError::Gone),
        };
        let dialed = dialed.and_then(|stream| match stream.as_fd().try_clone_to_owned() {
            Ok(fd) => Ok((stream, fd)),
            Err(source) => Err(DialError::Failed {
                port: self.port,
                source,
            }),
        });
        match dialed {
            Ok((stream, fd)) => {
                let read_ahead_len: Arc<AtomicUsize> = Arc::default();
                let socket = UpstreamSocket::new(fd, read_ahead_len.clone());
                let mut stream = match self.mode {
                    StreamMode::Buffered | StreamMode::Http2 => Stream::from(stream),
                    StreamMode::Streaming => Stream::from(VirtualSocketStream::new(Box::new(
                        ReadAheadStream::new(stream, read_ahead_len, self.read_ahead.clone()),
                    ))),
                };
                // Reuse of the connection preserves its digest, which holds the socket.
                let header = ResponseHeader::build(200, None)?;
                stream.set_proxy_digest(ProxyDigest::new(
                    Box::new(header),
                    Some(Box::new(Arc::new(socket))),
                ));
                Ok(stream)
            }
            Err(error) => {
                let explained = Error::explain(ErrorType::ConnectError, error.to_string());
                // Each request dials once, so the slot is empty.
                drop(self.error.set(error));
                Err(explained)
            }
        }
    }
}
