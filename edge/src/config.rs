//! How an edge is set up.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// How an edge is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The Unix socket of the API.
    pub api_socket: PathBuf,
    /// How long a request may wait for its sandbox to wake before it is answered with 504.
    pub wake_timeout: Duration,
    /// How long a connection into a guest may take to come about, retries included.
    pub dial_timeout: Duration,
    /// How long an unused connection into a guest or to the API is kept.
    pub keep_alive: Duration,
    /// How long requests under way may take to end once the edge is told to shut down.
    pub grace: Duration,
}

impl Config {
    /// The usual times.
    pub fn new(listen: SocketAddr, api_socket: PathBuf) -> Self {
        Self {
            listen,
            api_socket,
            wake_timeout: Duration::from_secs(60),
            dial_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            grace: Duration::from_secs(5),
        }
    }
}
