//! The client as guests learn of it: `X-Forwarded-For`, `-Proto` and `-Host`.
//!
//! The gateway is the first trusted proxy, so the values of the client are dropped.

use std::net::IpAddr;

use http::{HeaderValue, header};
use pingora::{http::RequestHeader, proxy::Session};

/// Headers of this family that a client must not set. `x-forwarded-prefix` belongs to path addressing.
const DROPPED: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
];

/// The client of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forwarded {
    address: Option<IpAddr>,
    tls: bool,
}

impl Forwarded {
    /// Describes the client of a session.
    pub(crate) fn of(session: &Session) -> Self {
        let address = session.client_addr().and_then(|address| address.as_inet());
        let digest = session.digest();
        Self {
            address: address.map(|address| address.ip()),
            tls: digest.is_some_and(|digest| digest.ssl_digest.is_some()),
        }
    }

    /// Describes a client of the plain listener without an address.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn unknown() -> Self {
        Self {
            address: None,
            tls: false,
        }
    }

    /// Replaces the client's headers.
    pub(crate) fn apply(self, request: &mut RequestHeader) -> pingora::Result<()> {
        for name in DROPPED {
            request.remove_header(name);
        }
        if let Some(address) = self.address {
            request.insert_header("x-forwarded-for", address.to_string())?;
        }
        let scheme = if self.tls { "https" } else { "http" };
        request.insert_header("x-forwarded-proto", scheme)?;
        let host: Option<HeaderValue> = request.headers.get(header::HOST).cloned();
        if let Some(host) = host {
            request.insert_header("x-forwarded-host", host)?;
        }
        Ok(())
    }
}
