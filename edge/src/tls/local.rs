//! A local certificate authority and the certificate that it signs.
//!
//! The authority is generated once, because clients trust its `ca.pem` across restarts. The certificate is regenerated
//! when it nears its expiry or the domain changes. Only the owner can read the keys.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use tracing::info;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    error::TlsError,
    pem::{read, read_chain, read_key, server_config, validity},
};

/// Validity of the authority. It is regenerated when less than the validity of a certificate remains.
const AUTHORITY_DAYS: i64 = 3650;
/// Validity of a certificate: the most that browsers accept.
const CERTIFICATE_DAYS: i64 = 397;
/// A certificate that expires sooner is regenerated.
const RENEW_DAYS: i64 = 30;

/// A certificate of the local authority.
#[derive(Debug, Clone)]
pub struct LocalCertificate {
    /// The configuration of the TLS server.
    pub config: Arc<ServerConfig>,
    /// The certificate of the authority, which clients must trust.
    pub authority: PathBuf,
}

/// Certificate and key of the authority.
struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

struct Paths {
    authority: PathBuf,
    authority_key: PathBuf,
    certificate: PathBuf,
    certificate_key: PathBuf,
}

/// A failure while a certificate is generated.
enum GenerateError {
    Generate(rcgen::Error),
    Write(TlsError),
}

/// Loads or generates a certificate for `domain`, every name directly below it, `localhost` and the loopback addresses.
/// The files are in `dir`, which is created if it does not exist.
pub fn local(dir: &Path, domain: &str) -> Result<LocalCertificate, TlsError> {
    fs::create_dir_all(dir).map_err(|source| TlsError::Write {
        path: dir.to_owned(),
        source,
    })?;
    let paths = Paths {
        authority: dir.join("ca.pem"),
        authority_key: dir.join("ca-key.pem"),
        certificate: dir.join("cert.pem"),
        certificate_key: dir.join("key.pem"),
    };
    let authority = match load_authority(&paths, dir, domain)? {
        Some(authority) => authority,
        None => generate_authority(&paths).map_err(|error| error.for_domain(domain))?,
    };
    let config = match load_certificate(&paths, &authority, domain) {
        Some(config) => config,
        None => generate_certificate(&paths, &authority, domain)?,
    };
    Ok(LocalCertificate {
        config,
        authority: paths.authority,
    })
}

/// Loads the authority. `None`: it does not exist or expires too soon.
fn load_authority(paths: &Paths, dir: &Path, domain: &str) -> Result<Option<Authority>, TlsError> {
    if !paths.authority.exists() || !paths.authority_key.exists() {
        return Ok(None);
    }
    let mismatch = || TlsError::KeyMismatch {
        dir: dir.to_owned(),
    };
    let certificate = read_chain(&paths.authority)?.swap_remove(0);
    let text = String::from_utf8(read(&paths.authority_key)?).map_err(|_| mismatch())?;
    let key = KeyPair::from_pem(&text).map_err(|source| TlsError::Generate {
        domain: domain.to_owned(),
        source,
    })?;
    let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| mismatch())?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(mismatch());
    }
    let is_valid = valid_for(&certificate, CERTIFICATE_DAYS);
    Ok(is_valid.then_some(Authority { certificate, key }))
}

fn generate_authority(paths: &Paths) -> Result<Authority, GenerateError> {
    let key = KeyPair::generate()?;
    let authority = authority_params(&key)?.self_signed(&key)?;
    write_atomic(&paths.authority_key, &key.serialize_pem(), 0o600)?;
    write_atomic(&paths.authority, &authority.pem(), 0o644)?;
    info!(path = %paths.authority.display(), "local certificate authority generated");
    let certificate = authority.der().clone();
    Ok(Authority { certificate, key })
}

/// Returns the parameters of the authority. They depend only on its key and the time.
fn authority_params(key: &KeyPair) -> Result<CertificateParams, rcgen::Error> {
    // A name per key distinguishes authorities in a trust store.
    let suffix =
        key.public_key_raw()
            .iter()
            .skip(1)
            .take(4)
            .fold(String::new(), |mut suffix, byte| {
                let written = write!(suffix, "{byte:02x}");
                debug_assert!(written.is_ok(), "writing to a string does not fail");
                suffix
            });
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name(&format!("Catnap local CA {suffix}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity_from_now(AUTHORITY_DAYS);
    Ok(params)
}

/// Loads the certificate. `None`: it must be generated.
fn load_certificate(
    paths: &Paths,
    authority: &Authority,
    domain: &str,
) -> Option<Arc<ServerConfig>> {
    let chain = read_chain(&paths.certificate).ok()?;
    let certificate = chain.first()?;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let (_, issuer) = X509Certificate::from_der(&authority.certificate).ok()?;
    let is_current = valid_for(certificate, RENEW_DAYS)
        && parsed.issuer().as_raw() == issuer.subject().as_raw()
        && subject_names(&parsed)? == required_names(domain);
    if !is_current {
        return None;
    }
    server_config(chain, read_key(&paths.certificate_key).ok()?).ok()
}

fn generate_certificate(
    paths: &Paths,
    authority: &Authority,
    domain: &str,
) -> Result<Arc<ServerConfig>, TlsError> {
    sign(paths, authority, domain).map_err(|error| error.for_domain(domain))?;
    info!(path = %paths.certificate.display(), domain, "local certificate generated");
    let chain = read_chain(&paths.certificate)?;
    server_config(chain, read_key(&paths.certificate_key)?).map_err(|source| TlsError::Unusable {
        certificate: paths.certificate.clone(),
        key: paths.certificate_key.clone(),
        source,
    })
}

fn sign(paths: &Paths, authority: &Authority, domain: &str) -> Result<(), GenerateError> {
    let names = required_names(domain).into_iter().collect::<Vec<_>>();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = common_name("Catnap local gateway");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity_from_now(CERTIFICATE_DAYS);
    let issuer = Issuer::new(authority_params(&authority.key)?, &authority.key);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write_atomic(&paths.certificate_key, &key.serialize_pem(), 0o600)?;
    write_atomic(&paths.certificate, &certificate.pem(), 0o644)?;
    Ok(())
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Returns the names that the certificate of a domain must have.
fn required_names(domain: &str) -> BTreeSet<String> {
    let domain = domain.to_ascii_lowercase();
    [
        format!("*.{domain}"),
        domain,
        "localhost".to_owned(),
        Ipv4Addr::LOCALHOST.to_string(),
        Ipv6Addr::LOCALHOST.to_string(),
    ]
    .into()
}

/// Returns the alternative names of a certificate.
fn subject_names(certificate: &X509Certificate<'_>) -> Option<BTreeSet<String>> {
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

/// Returns a validity of `days` that starts a day ago, to tolerate slow clocks.
fn validity_from_now(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let start = OffsetDateTime::now_utc() - Duration::DAY;
    (start, start + Duration::days(days))
}

/// Returns whether a certificate is valid now and for `days` more.
fn valid_for(certificate: &CertificateDer<'_>, days: i64) -> bool {
    let now = OffsetDateTime::now_utc();
    validity(certificate).is_some_and(|(not_before, not_after)| {
        not_before <= now && not_after >= now + Duration::days(days)
    })
}

/// Writes a temporary file and renames it, so that a crash leaves no partial file.
fn write_atomic(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A new file has its mode from the first byte on.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| TlsError::Write {
        path: path.to_owned(),
        source,
    })
}

// === impl GenerateError ===

impl GenerateError {
    fn for_domain(self, domain: &str) -> TlsError {
        match self {
            Self::Generate(source) => TlsError::Generate {
                domain: domain.to_owned(),
                source,
            },
            Self::Write(error) => error,
        }
    }
}

impl From<rcgen::Error> for GenerateError {
    fn from(error: rcgen::Error) -> Self {
        Self::Generate(error)
    }
}

impl From<TlsError> for GenerateError {
    fn from(error: TlsError) -> Self {
        Self::Write(error)
    }
}
