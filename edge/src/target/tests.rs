use http::{HeaderMap, HeaderValue, Request};
use pingora::http::RequestHeader;
use proptest::prelude::*;

use super::{Address, Destination, Target, TargetError};

const DOMAIN: &str = "80-mine.example";
const BOTH: &[(&str, &str)] = &[("e2b-sandbox-id", "iabc"), ("e2b-sandbox-port", "8080")];

fn request(target: &[u8], headers: &HeaderMap) -> Option<RequestHeader> {
    let mut request = RequestHeader::build("GET", target, None).ok()?;
    for (name, value) in headers {
        request.append_header(name.clone(), value).unwrap();
    }
    Some(request)
}

/// Resolves a request; `None` if Pingora refuses its request line.
fn resolve(headers: &HeaderMap, target: &[u8]) -> Option<Result<Destination, TargetError>> {
    request(target, headers).map(|request| super::resolve(&request, Some(DOMAIN)))
}

fn resolve_path(
    path: &str,
    host: &str,
    fields: &[(&'static str, &str)],
) -> Result<Destination, TargetError> {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_str(host).unwrap());
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    resolve(&headers, path.as_bytes()).unwrap()
}

fn resolve_host(host: &str, fields: &[(&'static str, &str)]) -> Result<Destination, TargetError> {
    resolve_path("/", host, fields)
}

fn address(id: &str, port: u16) -> Address {
    Address {
        sandbox: id.parse().unwrap(),
        port: port.try_into().unwrap(),
    }
}

fn addressed(destination: Result<Destination, TargetError>) -> Result<Address, TargetError> {
    match destination? {
        Destination::Sandbox(target) => Ok(target.address),
        Destination::Api => panic!("the destination is the API"),
    }
}

fn by_path(path: &str) -> Target {
    match resolve_path(path, "localhost", &[]) {
        Ok(Destination::Sandbox(target)) => target,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn host_addresses_port_and_sandbox() {
    for host in [
        "3000-iabc.example.com",
        "3000-iabc.e2b.localhost:8443",
        "3000-iabc-6532622b.x",
        "3000-iabc-6532622b-more.x",
        "3000-IABC.X",
        "3000-iabc",
    ] {
        let resolved = addressed(resolve_host(host, &[]));
        assert_eq!(resolved, Ok(address("iabc", 3000)), "{host}");
    }
}

#[test]
fn routing_headers_apply_on_neutral_hosts_only() {
    for host in [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:3000",
        "[::1]:3000",
        "[::1]",
        "sandbox.e2b.localhost:8443",
    ] {
        let resolved = addressed(resolve_host(host, BOTH));
        assert_eq!(resolved, Ok(address("iabc", 8080)), "{host}");
    }
    let resolved = addressed(resolve_host("1-iother.x", BOTH));
    assert_eq!(resolved, Ok(address("iother", 1)), "the host wins");
    assert_eq!(resolve_host("api.example.com", BOTH), Ok(Destination::Api));
}

#[test]
fn other_hosts_belong_to_the_api() {
    for host in [
        "localhost:3000",
        "127.0.0.1",
        "[::1]:3000",
        "api.e2b.localhost:8443",
        "my-gateway.example",
        "x",
        "-i.x",
    ] {
        assert_eq!(resolve_host(host, &[]), Ok(Destination::Api), "{host}");
    }
    for host in ["80-MINE.example:8443", "api.80-mine.example"] {
        assert_eq!(resolve_host(host, BOTH), Ok(Destination::Api), "{host}");
    }
    let resolved = addressed(resolve_host("80-mine.other", &[]));
    assert_eq!(resolved, Ok(address("mine", 80)));
}

#[test]
fn authority_of_the_request_target_replaces_missing_host() {
    // HTTP/2 requests have an authority rather than a host.
    let request = Request::get("https://80-iabc.x/")
        .version(http::Version::HTTP_2)
        .body(())
        .unwrap();
    let request = RequestHeader::from(request.into_parts().0);
    let resolved = addressed(super::resolve(&request, Some(DOMAIN)));
    assert_eq!(resolved, Ok(address("iabc", 80)));
}

#[test]
fn missing_host_is_an_error_in_http_1_1() {
    let resolve = |version, target: &str| {
        let request = Request::get(target).version(version).body(()).unwrap();
        let request = RequestHeader::from(request.into_parts().0);
        super::resolve(&request, Some(DOMAIN))
    };
    for target in ["/", "http://7001-iabc.x/v2/sandboxes"] {
        let resolved = resolve(http::Version::HTTP_11, target);
        assert_eq!(resolved, Err(TargetError::Host), "{target}");
    }
    let resolved = resolve(http::Version::HTTP_10, "/");
    assert_eq!(resolved, Ok(Destination::Api));
}

#[test]
fn unknown_subdomain_is_an_error() {
    for (host, error) in [
        ("what.80-mine.example", TargetError::Host),
        ("abcd-iabc.80-MINE.example:8443", TargetError::Port),
        ("-iabc.80-mine.example", TargetError::Port),
        ("80-.80-mine.example", TargetError::SandboxId),
    ] {
        assert_eq!(resolve_host(host, &[]), Err(error), "{host}");
    }
}

#[test]
fn path_addresses_sandbox_on_api_hosts_only() {
    let path = "/sandbox/ipath/81/x";
    for host in [
        "localhost",
        "127.0.0.1:3000",
        "[::1]",
        "api.x",
        "80-mine.example",
        "x",
    ] {
        let Ok(Destination::Sandbox(target)) = resolve_path(path, host, &[]) else {
            panic!("{host}")
        };
        assert_eq!(target.address, address("ipath", 81));
        assert_eq!(target.guest_path.as_bytes(), b"/x");
        assert_eq!(target.prefix.unwrap().as_str(), "/sandbox/ipath/81");
    }
    for (host, fields, expected) in [
        ("80-iabc.x", &[][..], address("iabc", 80)),
        ("localhost", BOTH, address("iabc", 8080)),
        ("sandbox.x", BOTH, address("iabc", 8080)),
    ] {
        let Ok(Destination::Sandbox(target)) = resolve_path(path, host, fields) else {
            panic!("{host}")
        };
        assert_eq!(target.address, expected);
        assert_eq!(target.guest_path.as_bytes(), path.as_bytes());
        assert_eq!(target.prefix, None);
    }
    let missing = resolve_path(path, "sandbox.x", &[]);
    assert_eq!(missing, Err(TargetError::MissingHeader));
}

#[test]
fn prefix_is_removed_from_guest_path() {
    for (path, prefix, guest_path) in [
        ("/sandbox/iabc/80/", "/sandbox/iabc/80", "/"),
        ("/sandbox/iabc/80", "/sandbox/iabc/80", "/"),
        ("/sandbox/iabc/80/a/b", "/sandbox/iabc/80", "/a/b"),
        (
            "/sandbox/iabc-6532622b/80//a",
            "/sandbox/iabc-6532622b/80",
            "//a",
        ),
        ("/sandbox/IABC/80/x", "/sandbox/IABC/80", "/x"),
        ("/sandbox/iabc/80?q=/x", "/sandbox/iabc/80", "/?q=/x"),
        (
            "http://localhost/sandbox/iabc/80/a?b",
            "/sandbox/iabc/80",
            "/a?b",
        ),
    ] {
        let target = by_path(path);
        assert_eq!(target.address, address("iabc", 80), "{path}");
        assert_eq!(target.prefix.unwrap().as_str(), prefix);
        assert_eq!(target.guest_path.as_bytes(), guest_path.as_bytes());
    }
    for path in [
        "/",
        "/sandbox",
        "/sandbox/",
        "/sandbox/iabc",
        "/sandboxes/iabc/80/",
    ] {
        let resolved = resolve_path(path, "localhost", &[]);
        assert_eq!(resolved, Ok(Destination::Api), "{path}");
    }
}

#[test]
fn guest_path_excludes_the_query() {
    for (target, path) in [
        ("/sandbox/iabc/80/a%2f?b/c", "/a%2f"),
        ("/sandbox/iabc/80?b", "/"),
        ("/sandbox/iabc/80/", "/"),
    ] {
        assert_eq!(by_path(target).guest_path.path(), path, "{target}");
    }
}

#[test]
fn malformed_target_names_the_invalid_part() {
    let id_alone = &BOTH[..1];
    let duplicate = [BOTH[0], BOTH[0], BOTH[1]];
    for (host, fields, expected) in [
        ("0-iabc.x", &[][..], TargetError::Port),
        ("65536-iabc.x", &[], TargetError::Port),
        ("99999999999999999999-iabc.x", &[], TargetError::Port),
        ("80-.x", &[], TargetError::SandboxId),
        ("80-i_c.x", &[], TargetError::SandboxId),
        ("80-i~c.x", &[], TargetError::SandboxId),
        ("a b", &[], TargetError::Host),
        ("x:y", &[], TargetError::Host),
        ("localhost", id_alone, TargetError::MissingHeader),
        ("127.0.0.1", &BOTH[1..], TargetError::MissingHeader),
        ("sandbox.x", &[], TargetError::MissingHeader),
        ("localhost", &duplicate, TargetError::SandboxId),
        (
            "localhost",
            &[("e2b-sandbox-id", "i-1_"), ("e2b-sandbox-port", "1")],
            TargetError::SandboxId,
        ),
        (
            "localhost",
            &[("e2b-sandbox-id", "i1"), ("e2b-sandbox-port", "http")],
            TargetError::Port,
        ),
    ] {
        let resolved = resolve_host(host, fields);
        assert_eq!(resolved, Err(expected), "{host} {fields:?}");
    }
    for (path, expected) in [
        ("/sandbox//80/", TargetError::SandboxId),
        ("/sandbox/i_c/80/", TargetError::SandboxId),
        ("/sandbox/%69abc/80/", TargetError::SandboxId),
        ("/sandbox/../80/", TargetError::SandboxId),
        ("/sandbox/iabc/", TargetError::Port),
        ("/sandbox/iabc/0/", TargetError::Port),
        ("/sandbox/iabc/http/", TargetError::Port),
        ("/sandbox/iabc/65536/", TargetError::Port),
        ("init", TargetError::RequestTarget),
        ("ftp://localhost/", TargetError::RequestTarget),
    ] {
        let resolved = resolve_path(path, "localhost", &[]);
        assert_eq!(resolved, Err(expected), "{path}");
    }
}

#[test]
fn error_texts_are_those_of_e2b() {
    for (error, text) in [
        (TargetError::Host, "Invalid host"),
        (TargetError::SandboxId, "Invalid sandbox ID"),
        (TargetError::Port, "Invalid sandbox port"),
        (TargetError::MissingHeader, "missing header"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

proptest! {
    #[test]
    fn arbitrary_hosts_and_headers_do_not_panic(
        host in proptest::collection::vec(any::<u8>(), 0..100),
        id in ".*",
        port in ".*",
        target in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", host.as_slice()), ("e2b-sandbox-id", id.as_bytes()), ("e2b-sandbox-port", port.as_bytes())] {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(name, value);
            }
        }
        drop(resolve(&headers, &target));
        drop(resolve(&headers, &[b"/sandbox/", target.as_slice()].concat()));
    }

    #[test]
    fn every_sandbox_host_resolves(
        id in "[a-z0-9]{1,57}",
        port in 1u16..,
        rest in "(-[a-z0-9]{1,8})?(\\.[a-z]{1,9}){1,3}(:[0-9]{1,5})?",
    ) {
        let resolved = addressed(resolve_host(&format!("{port}-{id}{rest}"), BOTH));
        prop_assert_eq!(resolved, Ok(address(&id, port)));
    }

    #[test]
    fn every_sandbox_path_resolves(
        id in "[a-z0-9]{1,57}",
        client in "(-[a-z0-9]{1,8})?",
        port in 1u16..,
        rest in "(/[a-z0-9%.~]{0,5}){0,3}",
    ) {
        let target = by_path(&format!("/sandbox/{id}{client}/{port}{rest}"));
        prop_assert_eq!(target.address, address(&id, port));
        let expected = if rest.is_empty() { "/" } else { rest.as_str() };
        prop_assert_eq!(target.guest_path.as_bytes(), expected.as_bytes());
    }

    #[test]
    fn mutated_sandbox_hosts_do_not_panic(at in 0usize..40, byte in any::<u8>(), cut in 0usize..40) {
        let mut host = b"49983-iabcdefgh0123456789-client.e2b.localhost:8443".to_vec();
        let place = at.min(host.len() - 1);
        host[place] = byte;
        host.remove(cut.min(host.len() - 1));
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&host) {
            headers.insert("host", value);
        }
        if let Some(Ok(Destination::Sandbox(target))) = resolve(&headers, b"/") {
            prop_assert!(!target.address.sandbox.as_str().is_empty());
            prop_assert_eq!(target.prefix, None);
        }
    }

    #[test]
    fn headers_never_override_a_sandbox_host(
        id in "[a-z0-9]{1,20}",
        port in 1u16..,
        other in ".{0,20}",
        path in "/[!-~]{0,20}",
    ) {
        let host = format!("{port}-{id}.x");
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_str(&host).unwrap());
        if let Ok(value) = HeaderValue::from_str(&other) {
            headers.insert("e2b-sandbox-id", value.clone());
            headers.insert("e2b-sandbox-port", value);
        }
        if let Some(resolved) = resolve(&headers, path.as_bytes()) {
            prop_assert_eq!(addressed(resolved), Ok(address(&id, port)));
        }
    }
}
