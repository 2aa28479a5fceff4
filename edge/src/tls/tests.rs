use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

use super::{TlsError, from_files, local, read_chain, validity};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_kept_and_its_certificate_follows_the_domain() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let made = local(dir.path(), "e2b.localhost").unwrap();
    assert_eq!(
        made.config.alpn_protocols,
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
    assert_eq!(read("ca.pem"), authority, "clients go on trusting it");
    assert_ne!(read("cert.pem"), certificate);

    fs::write(dir.path().join("cert.pem"), "garbage").unwrap();
    local(dir.path(), "other.test").unwrap();
    assert_eq!(read("ca.pem"), authority);
    assert!(read("cert.pem").contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_certificate_near_its_end_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    local(dir.path(), "e2b.localhost").unwrap();
    let key = KeyPair::from_pem(&fs::read_to_string(dir.path().join("key.pem")).unwrap()).unwrap();
    // Signed by nobody in particular, which alone is reason enough as well.
    let path = dir.path().join("cert.pem");
    fs::write(&path, certificate(&key, -300, 20)).unwrap();
    local(dir.path(), "e2b.localhost").unwrap();
    let (_, ends) = validity(&read_chain(&path).unwrap()[0]).unwrap();
    assert!(ends > OffsetDateTime::now_utc() + Duration::days(390));
}

#[test]
fn an_authority_in_two_halves_is_said_and_not_replaced() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    local(dir.path(), "x.test").unwrap();
    local(other.path(), "x.test").unwrap();
    fs::copy(
        other.path().join("ca-key.pem"),
        dir.path().join("ca-key.pem"),
    )
    .unwrap();
    let error = local(dir.path(), "x.test").unwrap_err();
    assert!(matches!(error, TlsError::Torn { .. }), "{error}");
    fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
    local(dir.path(), "x.test").unwrap();
}

/// A certificate that signs itself, good from so many days from now to so many.
fn certificate(key: &KeyPair, from: i64, to: i64) -> String {
    let mut params = CertificateParams::new(vec!["x.test".to_owned()]).unwrap();
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::days(from);
    params.not_after = now + Duration::days(to);
    params.self_signed(key).unwrap().pem()
}

#[test]
fn what_is_wrong_with_an_operators_files_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key_path) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let ask = |certificate: &str, key: &str| {
        fs::write(&path, certificate).unwrap();
        fs::write(&key_path, key).unwrap();
        from_files(&path, &key_path).map_err(|error| error.to_string())
    };
    let (good, pem) = (certificate(&key, -1, 1), key.serialize_pem());
    assert!(ask(&good, &pem).is_ok());
    for (certificate, key, complaint) in [
        ("", pem.as_str(), "find a certificate in PEM form in "),
        (&pem, &pem, "find a certificate in PEM form in "),
        (&good, "", "find a private key in PEM form in "),
        (&good, &other.serialize_pem(), "use the key in "),
        (&certificate(&key, -9, -1), &pem, "the certificate in "),
        (&certificate(&key, 1, 9), &pem, "the certificate in "),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &pem,
            "understand the certificate in ",
        ),
    ] {
        let error = ask(certificate, key).unwrap_err();
        assert!(error.starts_with(complaint), "{error}");
    }
    assert!(
        ask(&certificate(&key, -9, -1), &pem)
            .unwrap_err()
            .contains(" ended on ")
    );
    assert!(
        ask(&certificate(&key, 1, 9), &pem)
            .unwrap_err()
            .contains(" begins on ")
    );
    let error = from_files(&dir.path().join("none"), &key_path).unwrap_err();
    assert!(matches!(error, TlsError::Read { .. }), "{error}");
}
