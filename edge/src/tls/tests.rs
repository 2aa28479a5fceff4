use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

use super::{
    TlsError, from_files, local,
    pem::{read_chain, validity},
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn authority_persists_and_certificate_follows_domain() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let generated = local(dir.path(), "e2b.localhost").unwrap();
    assert_eq!(
        generated.config.alpn_protocols,
        [b"h2".to_vec(), b"http/1.1".to_vec()]
    );
    for (name, expected) in [
        ("ca.pem", 0o644),
        ("ca-key.pem", 0o600),
        ("cert.pem", 0o644),
        ("key.pem", 0o600),
    ] {
        assert_eq!(mode(&dir.path().join(name)), expected, "{name}");
    }
    let (authority, certificate) = (read("ca.pem"), read("cert.pem"));
    local(dir.path(), "E2B.localhost").unwrap();
    assert_eq!(
        (read("ca.pem"), read("cert.pem")),
        (authority.clone(), certificate.clone())
    );
    local(dir.path(), "other.test").unwrap();
    assert_eq!(read("ca.pem"), authority, "clients still trust it");
    assert_ne!(read("cert.pem"), certificate);

    fs::write(dir.path().join("cert.pem"), "garbage").unwrap();
    local(dir.path(), "other.test").unwrap();
    assert_eq!(read("ca.pem"), authority);
    assert!(read("cert.pem").contains("BEGIN CERTIFICATE"));
}

#[test]
fn certificate_near_expiry_is_regenerated() {
    let dir = tempfile::tempdir().unwrap();
    local(dir.path(), "e2b.localhost").unwrap();
    let key = KeyPair::from_pem(&fs::read_to_string(dir.path().join("key.pem")).unwrap()).unwrap();
    // Self-signed, which alone is a reason to regenerate it too.
    let path = dir.path().join("cert.pem");
    fs::write(&path, certificate(&key, -300, 20)).unwrap();
    local(dir.path(), "e2b.localhost").unwrap();
    let (_, not_after) = validity(&read_chain(&path).unwrap()[0]).unwrap();
    assert!(not_after > OffsetDateTime::now_utc() + Duration::days(390));
}

#[test]
fn mismatched_authority_key_is_an_error() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    local(dir.path(), "x.test").unwrap();
    local(other.path(), "x.test").unwrap();
    fs::copy(
        other.path().join("ca-key.pem"),
        dir.path().join("ca-key.pem"),
    )
    .unwrap();
    let error = local(dir.path(), "x.test").unwrap_err();
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
    fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
    local(dir.path(), "x.test").unwrap();
}

/// Returns a self-signed certificate, valid from `from` to `to` days from now.
fn certificate(key: &KeyPair, from: i64, to: i64) -> String {
    let mut params = CertificateParams::new(vec!["x.test".to_owned()]).unwrap();
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::days(from);
    params.not_after = now + Duration::days(to);
    params.self_signed(key).unwrap().pem()
}

#[test]
fn unusable_certificate_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key_path) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let load = |certificate: &str, key: &str| {
        fs::write(&path, certificate).unwrap();
        fs::write(&key_path, key).unwrap();
        from_files(&path, &key_path).map_err(|error| error.to_string())
    };
    let (valid, pem) = (certificate(&key, -1, 1), key.serialize_pem());
    assert!(load(&valid, &pem).is_ok());
    let no_certificate = "failed to find a certificate in PEM form in ";
    let no_key = "failed to find a private key in PEM form in ";
    let expired = certificate(&key, -9, -1);
    let not_yet_valid = certificate(&key, 1, 9);
    for (certificate, key, message) in [
        ("", pem.as_str(), no_certificate),
        (&pem, &pem, no_certificate),
        (&valid, "", no_key),
        (&valid, &other.serialize_pem(), "failed to use the key in "),
        (&expired, &pem, "the certificate in "),
        (&not_yet_valid, &pem, "the certificate in "),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &pem,
            "failed to parse the certificate in ",
        ),
    ] {
        let error = load(certificate, key).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    let error = load(&expired, &pem).unwrap_err();
    assert!(error.contains(" expired on "), "{error}");
    let error = load(&not_yet_valid, &pem).unwrap_err();
    assert!(error.contains(" is not valid before "), "{error}");
    let error = from_files(&dir.path().join("none"), &key_path).unwrap_err();
    assert!(matches!(error, TlsError::Read { .. }), "{error}");
}
