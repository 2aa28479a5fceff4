//! Certificates: the operator's, or Catnap's own for local use.
//!
//! Either way the result is what [`crate::Tls`] takes: HTTP/2 and HTTP/1.1 by ALPN, TLS 1.2 and 1.3, ring underneath.

mod local;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

pub use self::local::{Local, local};

/// A certificate that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("find {what} in PEM form in {}", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it was not found.
        #[source]
        source: pem::Error,
    },
    /// A certificate that is not X.509.
    #[error("understand the certificate in {}", .path.display())]
    Certificate {
        /// Where it is.
        path: PathBuf,
    },
    /// Its time is over.
    #[error("the certificate in {} ended on {}", .path.display(), .at.date())]
    Expired {
        /// Where it is.
        path: PathBuf,
        /// When.
        at: OffsetDateTime,
    },
    /// Its time has not begun.
    #[error("the certificate in {} begins on {}", .path.display(), .at.date())]
    NotYet {
        /// Where it is.
        path: PathBuf,
        /// When.
        at: OffsetDateTime,
    },
    /// The key is another certificate's, or of a kind that is not supported.
    #[error("use the key in {} with the certificate in {}", .key.display(), .certificate.display())]
    Unusable {
        /// Where the certificate is.
        certificate: PathBuf,
        /// Where the key is.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// The certificate authority's key is not that of its certificate.
    #[error("the key and the certificate in {} are of two authorities; remove both to have new ones made", .dir.display())]
    Torn {
        /// Where they are.
        dir: PathBuf,
    },
    /// A certificate could not be made.
    #[error("make a certificate for {domain}")]
    Make {
        /// For which domain.
        domain: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// A file could not be written.
    #[error("write {}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A certificate chain with its key, from files in PEM form.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read_chain(certificate)?;
    let private = read_key(key)?;
    let leaf = chain.first().ok_or_else(|| TlsError::Certificate {
        path: certificate.to_owned(),
    })?;
    let (from, to) = validity(leaf).ok_or_else(|| TlsError::Certificate {
        path: certificate.to_owned(),
    })?;
    let (path, now) = (certificate.to_owned(), OffsetDateTime::now_utc());
    if now >= to {
        return Err(TlsError::Expired { path, at: to });
    }
    if now < from {
        return Err(TlsError::NotYet { path, at: from });
    }
    server_config(chain, private).map_err(|source| TlsError::Unusable {
        certificate: path,
        key: key.to_owned(),
        source,
    })
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let missing = |source| TlsError::Pem {
        path: path.to_owned(),
        what: "a certificate",
        source,
    };
    let chain = found.map_err(missing)?;
    if chain.is_empty() {
        return Err(missing(pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        what: "a private key",
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// From when to when a certificate is good.
fn validity(der: &CertificateDer<'_>) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let time = |at: i64| OffsetDateTime::from_unix_timestamp(at).ok();
    let validity = parsed.validity();
    Some((
        time(validity.not_before.timestamp())?,
        time(validity.not_after.timestamp())?,
    ))
}

#[cfg(test)]
mod tests;
