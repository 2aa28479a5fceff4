//! Configuration of the edge.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use pool_api::Secret;
use rustls::ServerConfig;

use crate::panics::PanicCounter;

/// Configuration of the edge.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address for plain HTTP. Port 0 selects a free one. A loopback address includes the other family's.
    pub listen: SocketAddr,
    /// The address for TLS and its certificate; see [`crate::tls`].
    pub tls: Option<Tls>,
    /// The address of the unauthenticated Prometheus endpoint; restrict access to it.
    pub metrics: Option<SocketAddr>,
    /// The panics of this process, which the Prometheus endpoint reports.
    pub panics: Option<PanicCounter>,
    /// The gateway's own domain. The domain itself and `api.<domain>` always belong to the API.
    pub domain: Option<String>,
    /// The Unix socket of the API.
    pub api_socket: PathBuf,
    /// The API key, which is removed from requests to guests: some clients send it with every request.
    pub api_key: Option<Secret>,
    /// The time that a request waits for its sandbox to wake. After that the response is 504.
    pub wake_timeout: Duration,
    /// The time to connect to a guest, including retries.
    pub dial_timeout: Duration,
    /// The idle time after which a pooled upstream connection is closed.
    pub keep_alive: Duration,
    /// The time that requests in flight have to end after a shutdown has begun.
    pub shutdown_timeout: Duration,
    /// Limits of clients.
    pub limits: Limits,
}

/// The listener for TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The address. Port 0 selects a free one.
    pub listen: SocketAddr,
    /// Certificate and protocols.
    pub config: Arc<ServerConfig>,
}

/// Limits of clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of all clients. Further ones are closed at once.
    pub connections: usize,
    /// Connections of one client address. Further ones are closed at once.
    pub connections_per_address: u32,
    /// Requests in flight of all clients. Further ones receive 503 without a body.
    pub requests: usize,
    /// Requests in flight of one client address. Further ones receive 429.
    pub requests_per_address: u32,
    /// Requests of one client address that wait for a wake. Further ones receive 429.
    pub wakes_per_address: u32,
    /// Requests in flight to the API. Further ones receive 503.
    pub api_requests: usize,
    /// Concurrent requests to one sandbox, including WebSockets and streams: fewer than the vsock streams of a guest.
    /// Further ones receive 429.
    pub connections_per_sandbox: u32,
    /// Bytes of responses that are read ahead of slow clients.
    pub read_ahead: ReadAheadLimits,
    /// Bytes of a request head: its target and its headers. A larger one receives 431, or its connection is closed.
    pub head_bytes: usize,
    /// The time from the first byte of a request head to its last. The TLS handshake and the first head share it.
    pub head_timeout: Duration,
    /// The idle time after which a connection without a request is closed.
    pub idle_connection: Duration,
    /// The time without a byte of a body after which a request is ended.
    pub idle_stream: Duration,
    /// The time for which a client may not read a response of the gateway itself or of the API.
    pub stalled_response: Duration,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// The burst of streams of one HTTP/2 connection that the client may reset. A tenth of it refills each second.
    pub resets: u32,
}

/// Bounds of read-ahead in bytes.
#[derive(Debug, Clone, Copy)]
pub struct ReadAheadLimits {
    /// Of one request.
    pub request: usize,
    /// Of all requests.
    pub all: usize,
}

impl Config {
    /// Returns a configuration with default timeouts and limits, without TLS.
    pub fn new(listen: SocketAddr, api_socket: PathBuf) -> Self {
        Self {
            listen,
            tls: None,
            metrics: None,
            panics: None,
            domain: None,
            api_socket,
            api_key: None,
            wake_timeout: Duration::from_secs(60),
            dial_timeout: Duration::from_secs(30),
            // Common servers close idle connections after five seconds.
            keep_alive: Duration::from_secs(4),
            shutdown_timeout: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 15_000,
            requests: 10_000,
            requests_per_address: 7_500,
            wakes_per_address: 256,
            api_requests: 1_000,
            connections_per_sandbox: 900,
            read_ahead: ReadAheadLimits {
                request: 1 << 20,
                all: 256 << 20,
            },
            head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(30),
            idle_connection: Duration::from_secs(60),
            idle_stream: Duration::from_secs(600),
            stalled_response: Duration::from_secs(30),
            streams: 250,
            resets: 500,
        }
    }
}
