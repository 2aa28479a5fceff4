//! A certificate authority of one's own, for local use.
//!
//! It is made once and kept: clients are told to trust `ca.pem`, and that must hold over restarts. The certificate it
//! signs is made again when it nears its end or is for other names. Keys are for their owner alone.

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

use super::{TlsError, read, read_chain, read_key, server_config, validity};

/// How long the authority lasts. It is made anew when what is left is less than a certificate's time.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a certificate lasts: what browsers accept at most.
const CERTIFICATE_DAYS: i64 = 397;
/// A certificate that ends sooner is made again.
const RENEW_DAYS: i64 = 30;

/// A certificate for local use.
#[derive(Debug, Clone)]
pub struct Local {
    /// What to serve with.
    pub config: Arc<ServerConfig>,
    /// The authority's certificate, which clients must trust.
    pub authority: PathBuf,
}

/// Certificate and key of the authority.
struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// The files.
struct Paths {
    authority: PathBuf,
    authority_key: PathBuf,
    certificate: PathBuf,
    certificate_key: PathBuf,
}

/// A certificate for `domain`, every name directly under it, `localhost` and the loopback addresses, kept in `dir`,
/// which is made if need be.
pub fn local(dir: &Path, domain: &str) -> Result<Local, TlsError> {
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
    let authority = match kept_authority(&paths, dir, domain)? {
        Some(authority) => authority,
        None => make_authority(&paths).map_err(|error| error.of(domain))?,
    };
    let config = match kept_certificate(&paths, &authority, domain) {
        Some(config) => config,
        None => make_certificate(&paths, &authority, domain)?,
    };
    Ok(Local {
        config,
        authority: paths.authority,
    })
}

/// The authority that is there. `None`: there is none, or not for long.
fn kept_authority(paths: &Paths, dir: &Path, domain: &str) -> Result<Option<Authority>, TlsError> {
    if !paths.authority.exists() || !paths.authority_key.exists() {
        return Ok(None);
    }
    let torn = || TlsError::Torn {
        dir: dir.to_owned(),
    };
    let certificate = read_chain(&paths.authority)?.swap_remove(0);
    let text = String::from_utf8(read(&paths.authority_key)?).map_err(|_| torn())?;
    let key = KeyPair::from_pem(&text).map_err(|source| TlsError::Make {
        domain: domain.to_owned(),
        source,
    })?;
    let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| torn())?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(torn());
    }
    let lasts = lasts(&certificate, CERTIFICATE_DAYS);
    Ok(lasts.then_some(Authority { certificate, key }))
}

/// Something went wrong while making.
enum MakeError {
    Make(rcgen::Error),
    Write(TlsError),
}

impl MakeError {
    fn of(self, domain: &str) -> TlsError {
        match self {
            Self::Make(source) => TlsError::Make {
                domain: domain.to_owned(),
                source,
            },
            Self::Write(error) => error,
        }
    }
}

impl From<rcgen::Error> for MakeError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error)
    }
}

impl From<TlsError> for MakeError {
    fn from(error: TlsError) -> Self {
        Self::Write(error)
    }
}

fn make_authority(paths: &Paths) -> Result<Authority, MakeError> {
    let key = KeyPair::generate()?;
    let made = authority_params(&key)?.self_signed(&key)?;
    keep(&paths.authority_key, &key.serialize_pem(), 0o600)?;
    keep(&paths.authority, &made.pem(), 0o644)?;
    info!(path = %paths.authority.display(), "made a certificate authority for local use");
    let certificate = made.der().clone();
    Ok(Authority { certificate, key })
}

/// The same for the same key, but for the time.
fn authority_params(key: &KeyPair) -> Result<CertificateParams, rcgen::Error> {
    // Each has a name of its own, so that one in a trust store is never taken for another.
    let mark = key
        .public_key_raw()
        .iter()
        .skip(1)
        .take(4)
        .fold(String::new(), |mut mark, byte| {
            let written = write!(mark, "{byte:02x}");
            debug_assert!(written.is_ok(), "writing to a string does not fail");
            mark
        });
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name(&format!("Catnap local CA {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = span(AUTHORITY_DAYS);
    Ok(params)
}

/// The certificate that is there. `None`: it has to be made.
fn kept_certificate(
    paths: &Paths,
    authority: &Authority,
    domain: &str,
) -> Option<Arc<ServerConfig>> {
    let chain = read_chain(&paths.certificate).ok()?;
    let certificate = chain.first()?;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let (_, above) = X509Certificate::from_der(&authority.certificate).ok()?;
    let fits = lasts(certificate, RENEW_DAYS)
        && parsed.issuer().as_raw() == above.subject().as_raw()
        && names_of(&parsed)? == names(domain);
    if !fits {
        return None;
    }
    server_config(chain, read_key(&paths.certificate_key).ok()?).ok()
}

fn make_certificate(
    paths: &Paths,
    authority: &Authority,
    domain: &str,
) -> Result<Arc<ServerConfig>, TlsError> {
    sign(paths, authority, domain).map_err(|error| error.of(domain))?;
    info!(path = %paths.certificate.display(), domain, "made a certificate for local use");
    let chain = read_chain(&paths.certificate)?;
    server_config(chain, read_key(&paths.certificate_key)?).map_err(|source| TlsError::Unusable {
        certificate: paths.certificate.clone(),
        key: paths.certificate_key.clone(),
        source,
    })
}

fn sign(paths: &Paths, authority: &Authority, domain: &str) -> Result<(), MakeError> {
    let mut params = CertificateParams::new(names(domain).into_iter().collect::<Vec<_>>())?;
    params.distinguished_name = name("Catnap local gateway");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = span(CERTIFICATE_DAYS);
    let issuer = Issuer::new(authority_params(&authority.key)?, &authority.key);
    let key = KeyPair::generate()?;
    let made = params.signed_by(&key, &issuer)?;
    keep(&paths.certificate_key, &key.serialize_pem(), 0o600)?;
    keep(&paths.certificate, &made.pem(), 0o644)?;
    Ok(())
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// What a certificate is for.
fn names(domain: &str) -> BTreeSet<String> {
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

fn names_of(certificate: &X509Certificate<'_>) -> Option<BTreeSet<String>> {
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

/// From a day ago, for clocks that are slow, for so many days.
fn span(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let begins = OffsetDateTime::now_utc() - Duration::DAY;
    (begins, begins + Duration::days(days))
}

/// Whether a certificate is good now and for so many days.
fn lasts(certificate: &CertificateDer<'_>, days: i64) -> bool {
    let now = OffsetDateTime::now_utc();
    validity(certificate).is_some_and(|(from, to)| from <= now && to >= now + Duration::days(days))
}

/// Written aside and renamed, so that a crash leaves a whole file or none.
fn keep(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let aside = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Made new, so that the mode holds from the first byte on.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(|source| TlsError::Write {
        path: path.to_owned(),
        source,
    })
}
