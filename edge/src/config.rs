//! How an edge is set up.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use pool_api::Secret;
use rustls::ServerConfig;

/// How an edge is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens without TLS. Port 0 takes a free one. A loopback address takes the other family's as well.
    pub listen: SocketAddr,
    /// Where it listens with TLS, and with which certificate; see [`crate::tls`].
    pub tls: Option<Tls>,
    /// Where Prometheus is answered, with all that is counted and no token asked for: keep it to those who may know.
    pub metrics: Option<SocketAddr>,
    /// The domain whose names it answers to. `api.<domain>` and the domain itself are the API's in any case.
    pub domain: Option<String>,
    /// The Unix socket of the API.
    pub api_socket: PathBuf,
    /// The key of the API. Clients that send it to sandboxes as well do not mean the guests to have it.
    pub api_key: Option<Secret>,
    /// How long a request may wait for its sandbox to wake before it is answered with 504.
    pub wake_timeout: Duration,
    /// How long a connection into a guest may take to come about, retries included.
    pub dial_timeout: Duration,
    /// How long an unused connection into a guest or to the API is kept.
    pub keep_alive: Duration,
    /// How long requests under way may take to end once the edge is told to shut down.
    pub grace: Duration,
    /// What clients may cost.
    pub limits: Limits,
}

/// The front door with TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and protocols.
    pub config: Arc<ServerConfig>,
}

/// What clients may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of all clients together. One more is closed at once.
    pub connections: usize,
    /// Requests under way in one sandbox, WebSockets and streams among them. One more is answered with 429.
    pub connections_per_sandbox: u32,
    /// Bytes of a request's head: its target and header fields. A longer one is answered with 431 or its connection
    /// closed.
    pub head_bytes: usize,
    /// From the first byte of a request's head to its last. The TLS handshake and the first head have it together.
    pub head_time: Duration,
    /// How long a connection without a request is kept.
    pub idle_connection: Duration,
    /// How long a request may be under way without a byte of a body passing either way.
    pub idle_stream: Duration,
    /// Requests at once over one HTTP/2 connection.
    pub streams: u32,
    /// Streams of one HTTP/2 connection that the client may reset in a burst. A tenth as many a second are forgiven.
    pub resets: u32,
}

impl Config {
    /// The usual times and limits, without TLS.
    pub fn new(listen: SocketAddr, api_socket: PathBuf) -> Self {
        Self {
            listen,
            tls: None,
            metrics: None,
            domain: None,
            api_socket,
            api_key: None,
            wake_timeout: Duration::from_secs(60),
            dial_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_sandbox: 2_000,
            head_bytes: 64 << 10,
            head_time: Duration::from_secs(30),
            idle_connection: Duration::from_secs(60),
            idle_stream: Duration::from_secs(600),
            streams: 250,
            resets: 500,
        }
    }
}
