//! Certificates: the operator's, or the gateway's own for local use.
//!
//! Both yield the configuration that [`crate::Tls`] takes: HTTP/2 and HTTP/1.1 by ALPN, TLS 1.2 and 1.3, implemented by ring.

mod error;
mod local;
mod pem;

use std::{path::Path, sync::Arc};

use rustls::ServerConfig;
use time::OffsetDateTime;

use self::pem::{read_chain, read_key, server_config, validity};

pub use self::{
    error::TlsError,
    local::{LocalCertificate, local},
};

/// Loads a certificate chain and its key from PEM files.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read_chain(certificate)?;
    let private = read_key(key)?;
    let leaf = chain.first().ok_or_else(|| TlsError::Certificate {
        path: certificate.to_owned(),
    })?;
    let (not_before, not_after) = validity(leaf).ok_or_else(|| TlsError::Certificate {
        path: certificate.to_owned(),
    })?;
    let (path, now) = (certificate.to_owned(), OffsetDateTime::now_utc());
    if now >= not_after {
        return Err(TlsError::Expired {
            path,
            at: not_after,
        });
    }
    if now < not_before {
        return Err(TlsError::NotYetValid {
            path,
            at: not_before,
        });
    }
    server_config(chain, private).map_err(|source| TlsError::Unusable {
        certificate: path,
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
