//! Ports, and their twins.
//!
//! Names under `localhost` resolve to `::1` as well as to `127.0.0.1`, and clients try either first: who listens on the
//! one takes the other too.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use tracing::warn;

/// An edge that cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A port of this machine, taken.
#[derive(Debug)]
pub(crate) struct Door {
    /// The address that was asked for, with the port it got.
    pub(crate) address: SocketAddr,
    /// It, and its twin if it has one.
    pub(crate) listeners: Vec<TcpListener>,
}

impl Door {
    /// Takes a port. Connections wait in the kernel until somebody accepts them.
    pub(crate) fn open(asked: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError {
            address: asked,
            source,
        };
        let first = listener(asked).map_err(failed)?;
        let address = first.local_addr().map_err(failed)?;
        let mut listeners = vec![first];
        if let Some(twin) = twin(address) {
            match listener(twin) {
                Ok(second) => listeners.push(second),
                Err(error) => warn!(%error, address = %twin, "could not listen there as well"),
            }
        }
        Ok(Self { address, listeners })
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // The standard library asks for 128 waiting connections, of which a burst takes more.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Connections that may wait to be accepted. The kernel has a bound of its own.
const BACKLOG: i32 = 4096;

fn twin(address: SocketAddr) -> Option<SocketAddr> {
    let other: IpAddr = match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(other, address.port()))
}
