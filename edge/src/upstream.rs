//! A stream to a port of a guest, through a lease.
//!
//! Pingora keeps connections for reuse under a key that does not know of the connector, so the peer of every port of
//! every life of every sandbox gets a `group_key` of its own.

mod duplex;

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::header;
use pingora::{
    Error, ErrorType,
    connectors::L4Connect,
    http::ResponseHeader,
    protocols::{
        Digest, GetProxyDigest,
        l4::{socket::SocketAddr, stream::Stream, virt::VirtualSocketStream},
        raw_connect::ProxyDigest,
    },
    proxy::Session,
    upstreams::peer::HttpPeer,
};
use pool_api::{DialError, Lease, Port};
use tokio::net::UnixStream;
use tracing::debug;

use self::duplex::Duplex;
use crate::{config::Config, visit::Stay};

/// Waits between tries to reach a port: a service that has just been started may not listen yet.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(400),
];

/// Makes peers.
#[derive(Debug)]
pub(crate) struct Upstreams {
    keys: RandomState,
    dial_timeout: Duration,
    keep_alive: Duration,
}

/// What passes over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Traffic {
    /// A request that fits the buffers on its way, then a response. The connection may be used again.
    Exchange,
    /// Both ways at once for long. The connection is used once: Pingora takes no such stream for another request.
    Duplex,
}

/// Why a connection into a guest did not come about, left here for whoever answers the request.
pub(crate) type DialOutcome = Arc<OnceLock<DialError>>;

/// The descriptor of a connection into a guest, by which it can be cut.
#[derive(Debug)]
pub(crate) struct Line {
    socket: OwnedFd,
    /// Bytes that were read ahead and not taken yet.
    ahead: Arc<AtomicUsize>,
}

/// Bytes of a request's body that certainly fit the buffers on its way.
const SMALL_BODY: u64 = 64 << 10;

impl Traffic {
    /// What a request asks for.
    pub(crate) fn of(session: &Session) -> Self {
        let headers = &session.req_header().headers;
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let large = headers.contains_key(header::TRANSFER_ENCODING)
            || length.is_some_and(|length| length > SMALL_BODY);
        if large || session.is_upgrade_req() {
            Self::Duplex
        } else {
            Self::Exchange
        }
    }
}

impl Upstreams {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            keys: RandomState::new(),
            dial_timeout: config.dial_timeout,
            keep_alive: config.keep_alive,
        }
    }

    /// The peer that is the port of the sandbox a request stays in.
    pub(crate) fn peer(&self, stay: &Stay, traffic: Traffic) -> Box<HttpPeer> {
        let (address, lease, tls) = (&stay.address, stay.lease.clone(), stay.guise.tls);
        // Nothing is at this address. Before Pingora reuses a connection it compares the address with the socket's peer,
        // and takes any peer for this one. The name is part of the reuse key too.
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port.get());
        let mut peer = HttpPeer::new(nowhere, tls, address.sandbox.to_string());
        // The stream ends in the guest whoever speaks there: a certificate would say nothing more.
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
        let life = (&address.sandbox, lease.epoch());
        peer.group_key = self.keys.hash_one((life, address.port, tls, traffic));
        peer.options.custom_l4 = Some(Arc::new(Dialer {
            lease,
            port: address.port,
            outcome: stay.outcome.clone(),
            traffic,
        }));
        peer.options.total_connection_timeout = Some(self.dial_timeout);
        peer.options.idle_timeout = Some(self.keep_alive);
        Box::new(peer)
    }

    /// The peer that is the API.
    pub(crate) fn api(&self, socket: &Path) -> pingora::Result<Box<HttpPeer>> {
        let path = socket.to_str().ok_or_else(|| {
            Error::explain(
                ErrorType::InternalError,
                "the API's socket has no name in UTF-8",
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
    outcome: DialOutcome,
    traffic: Traffic,
}

impl Dialer {
    async fn dial(&self) -> Result<UnixStream, DialError> {
        for pause in BACKOFF {
            match self.lease.dial(self.port).await {
                Err(DialError::Closed(_)) => tokio::time::sleep(pause).await,
                answered => return answered,
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
            Ok(line) => Ok((stream, line)),
            Err(source) => Err(DialError::Failed {
                port: self.port,
                source,
            }),
        });
        match dialed {
            Ok((stream, line)) => {
                let ahead: Arc<AtomicUsize> = Arc::default();
                let mut stream = match self.traffic {
                    Traffic::Exchange => Stream::from(stream),
                    Traffic::Duplex => Stream::from(VirtualSocketStream::new(Box::new(
                        Duplex::new(stream, ahead.clone()),
                    ))),
                };
                // The digest stays with the connection for as long as it is reused, and the line with it.
                let header = ResponseHeader::build(200, None)?;
                stream.set_proxy_digest(ProxyDigest::new(
                    Box::new(header),
                    Some(Box::new(Arc::new(Line {
                        socket: line,
                        ahead,
                    }))),
                ));
                Ok(stream)
            }
            Err(error) => {
                let told = Error::explain(ErrorType::ConnectError, error.to_string());
                // Set once: there is one try a request.
                drop(self.outcome.set(error));
                Err(told)
            }
        }
    }
}

impl Line {
    /// The line of the connection a digest is of.
    pub(crate) fn of(digest: Option<&Digest>) -> Option<Arc<Self>> {
        let proxy = digest?.proxy_digest.as_ref()?;
        proxy
            .user_data
            .as_ref()?
            .downcast_ref::<Arc<Self>>()
            .cloned()
    }

    /// Bytes that were read ahead and not taken yet.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Ends the connection: whoever reads from it reads its end, whoever writes to it gets an error.
    pub(crate) fn cut(&self) {
        if let Err(error) = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both) {
            debug!(%error, "could not cut a connection into a guest");
        }
    }
}
