//! Certificates and keys that cannot be used.

use std::{io, path::PathBuf};

use rustls_pki_types::pem;
use time::OffsetDateTime;

/// A certificate that cannot be loaded or generated.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or cannot be read.
    #[error("failed to read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file does not contain the expected PEM item.
    #[error("failed to find {expected} in PEM form in {}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The expected item.
        expected: &'static str,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// A certificate is not X.509.
    #[error("failed to parse the certificate in {}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate has expired.
    #[error("the certificate in {} expired on {}", .path.display(), .at.date())]
    Expired {
        /// The file.
        path: PathBuf,
        /// The end of its validity.
        at: OffsetDateTime,
    },
    /// A certificate is not valid yet.
    #[error("the certificate in {} is not valid before {}", .path.display(), .at.date())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// The start of its validity.
        at: OffsetDateTime,
    },
    /// The key does not match the certificate, or its kind is unsupported.
    #[error("failed to use the key in {} with the certificate in {}", .key.display(), .certificate.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// The key of the local certificate authority does not match its certificate.
    #[error("CA certificate and key in {} do not match; delete both to regenerate them", .dir.display())]
    KeyMismatch {
        /// The directory of both files.
        dir: PathBuf,
    },
    /// A certificate cannot be generated.
    #[error("failed to generate a certificate for {domain}")]
    Generate {
        /// The domain of the certificate.
        domain: String,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// A file cannot be written.
    #[error("failed to write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
