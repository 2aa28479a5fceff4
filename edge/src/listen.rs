//! Listening sockets.
//!
//! Names under `localhost` resolve to `127.0.0.1` and to `::1`, and clients try either first. A listener on one loopback
//! address therefore also listens on the other.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use error_chain::chain;
use tracing::warn;

/// The accept queue of a listener. The kernel has an upper bound of its own.
const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// The listening sockets of one address.
#[derive(Debug)]
pub(crate) struct BoundListener {
    /// The requested address with its actual port.
    pub(crate) address: SocketAddr,
    /// The socket, and that of the other loopback address.
    pub(crate) sockets: Vec<TcpListener>,
}

impl BoundListener {
    /// Listens on an address. The kernel queues connections until they are accepted.
    pub(crate) fn bind(requested: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError {
            address: requested,
            source,
        };
        let first = listen(requested).map_err(failed)?;
        let address = first.local_addr().map_err(failed)?;
        let mut sockets = vec![first];
        if let Some(other) = other_loopback(address) {
            match listen(other) {
                Ok(second) => sockets.push(second),
                Err(error) => {
                    warn!(error = %chain(&error), address = %other, "failed to listen on other loopback address");
                }
            }
        }
        Ok(Self { address, sockets })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // The standard library sets a backlog of 128, which a burst of connections exceeds.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Returns the loopback address of the other family; `None` if the address is not loopback.
fn other_loopback(address: SocketAddr) -> Option<SocketAddr> {
    let other: IpAddr = match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(other, address.port()))
}
