use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::{Address, Destination, HostError, Target};

fn destination(
    headers: &HeaderMap,
    authority: Option<&str>,
    path: &str,
) -> Result<Destination, HostError> {
    let target = Target {
        headers,
        authority,
        path,
    };
    super::destination(target, Some("80-mine.example"))
}

fn ask(host: &str, fields: &[(&'static str, &str)]) -> Result<Destination, HostError> {
    ask_for("/", host, fields)
}

fn ask_for(
    path: &str,
    host: &str,
    fields: &[(&'static str, &str)],
) -> Result<Destination, HostError> {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_str(host).unwrap());
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    destination(&headers, None, path)
}

fn sandbox(id: &str, port: u16) -> Result<Destination, HostError> {
    let address = Address {
        sandbox: id.parse().unwrap(),
        port: port.try_into().unwrap(),
    };
    Ok(Destination::Sandbox(address, None))
}

const BOTH: &[(&str, &str)] = &[("e2b-sandbox-id", "iabc"), ("e2b-sandbox-port", "8080")];

#[test]
fn a_host_names_port_and_sandbox() {
    for host in [
        "3000-iabc.example.com",
        "3000-iabc.e2b.localhost:8443",
        "3000-iabc-6532622b.x",
        "3000-IABC.X",
        "3000-iabc",
    ] {
        assert_eq!(ask(host, &[]), sandbox("iabc", 3000), "{host}");
    }
}

#[test]
fn headers_name_them_on_neutral_hosts_only() {
    for host in [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:3000",
        "[::1]:3000",
        "[::1]",
        "sandbox.e2b.localhost:8443",
    ] {
        assert_eq!(ask(host, BOTH), sandbox("iabc", 8080), "{host}");
    }
    assert_eq!(
        ask("1-iother.x", BOTH),
        sandbox("iother", 1),
        "a sandbox's own host wins"
    );
    assert_eq!(ask("api.example.com", BOTH), Ok(Destination::Api));
}

#[test]
fn everything_else_is_the_api() {
    for host in [
        "localhost:3000",
        "127.0.0.1",
        "[::1]:3000",
        "api.e2b.localhost:8443",
        "my-gateway.example",
        "x",
        "-i.x",
    ] {
        assert_eq!(ask(host, &[]), Ok(Destination::Api), "{host}");
    }
    let none = HeaderMap::new();
    assert_eq!(destination(&none, None, "/"), Ok(Destination::Api));
    assert_eq!(
        destination(&none, Some("80-iabc.x"), "/"),
        sandbox("iabc", 80)
    );
    assert_eq!(ask("80-MINE.example:8443", BOTH), Ok(Destination::Api));
    assert_eq!(ask("api.80-mine.example", BOTH), Ok(Destination::Api));
    assert_eq!(ask("80-mine.other", &[]), sandbox("mine", 80));
}

#[test]
fn what_is_below_the_own_domain_and_names_nothing_is_told() {
    for (host, error) in [
        ("what.80-mine.example", HostError::Host),
        ("abcd-iabc.80-MINE.example:8443", HostError::Port),
        ("-iabc.80-mine.example", HostError::Port),
        ("80-.80-mine.example", HostError::Sandbox),
    ] {
        assert_eq!(ask(host, &[]), Err(error), "{host}");
    }
}

#[test]
fn a_path_names_them_on_hosts_of_the_api_only() {
    let path = "/sandbox/ipath/81/x";
    for host in [
        "localhost",
        "127.0.0.1:3000",
        "[::1]",
        "api.x",
        "80-mine.example",
        "x",
    ] {
        let Ok(Destination::Sandbox(address, Some(prefix))) = ask_for(path, host, &[]) else {
            panic!("{host}")
        };
        assert_eq!(
            (address.sandbox.as_str(), address.port.get()),
            ("ipath", 81)
        );
        assert_eq!(prefix.as_str(), "/sandbox/ipath/81");
    }
    assert_eq!(ask_for(path, "80-iabc.x", &[]), sandbox("iabc", 80));
    assert_eq!(ask_for(path, "localhost", BOTH), sandbox("iabc", 8080));
    assert_eq!(ask_for(path, "sandbox.x", BOTH), sandbox("iabc", 8080));
    assert_eq!(
        ask_for(path, "sandbox.x", &[]),
        Err(HostError::MissingHeader)
    );
}

#[test]
fn what_is_malformed_is_named() {
    let one = &BOTH[..1];
    let twice = [BOTH[0], BOTH[0], BOTH[1]];
    for (host, fields, expected) in [
        ("0-iabc.x", &[][..], HostError::Port),
        ("65536-iabc.x", &[], HostError::Port),
        ("99999999999999999999-iabc.x", &[], HostError::Port),
        ("80-.x", &[], HostError::Sandbox),
        ("80-i_c.x", &[], HostError::Sandbox),
        ("80-i~c.x", &[], HostError::Sandbox),
        ("a b", &[], HostError::Host),
        ("x:y", &[], HostError::Host),
        ("localhost", one, HostError::MissingHeader),
        ("127.0.0.1", &BOTH[1..], HostError::MissingHeader),
        ("sandbox.x", &[], HostError::MissingHeader),
        ("localhost", &twice, HostError::Sandbox),
        (
            "localhost",
            &[("e2b-sandbox-id", "i-1_"), ("e2b-sandbox-port", "1")],
            HostError::Sandbox,
        ),
        (
            "localhost",
            &[("e2b-sandbox-id", "i1"), ("e2b-sandbox-port", "http")],
            HostError::Port,
        ),
    ] {
        assert_eq!(ask(host, fields), Err(expected), "{host} {fields:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(host in proptest::collection::vec(any::<u8>(), 0..100), id in ".*", port in ".*") {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", host.as_slice()), ("e2b-sandbox-id", id.as_bytes()), ("e2b-sandbox-port", port.as_bytes())] {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(name, value);
            }
        }
        // An answer of any kind is right; a panic is not.
        drop(destination(&headers, id.get(..5), &port));
    }

    #[test]
    fn every_sandbox_host_is_understood(id in "[a-z0-9]{1,57}", port in 1u16.., rest in "(-[a-z0-9]{1,8})?(\\.[a-z]{1,9}){1,3}(:[0-9]{1,5})?") {
        prop_assert_eq!(ask(&format!("{port}-{id}{rest}"), BOTH), sandbox(&id, port));
    }

    #[test]
    fn a_mangled_sandbox_host_is_answered(at in 0usize..40, byte in any::<u8>(), cut in 0usize..40) {
        let mut host = b"49983-iabcdefgh0123456789-client.e2b.localhost:8443".to_vec();
        let place = at.min(host.len() - 1);
        host[place] = byte;
        host.remove(cut.min(host.len() - 1));
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&host) {
            headers.insert("host", value);
        }
        match destination(&headers, None, "/") {
            Ok(Destination::Sandbox(address, None)) => prop_assert!(!address.sandbox.as_str().is_empty()),
            Ok(Destination::Sandbox(_, Some(_))) => prop_assert!(false, "there is no path"),
            Ok(Destination::Api) | Err(_) => {}
        }
    }

    #[test]
    fn headers_never_override_a_sandbox_host(id in "[a-z0-9]{1,20}", port in 1u16.., other in ".{0,20}", path in ".{0,20}") {
        let host = format!("{port}-{id}.x");
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_str(&host).unwrap());
        if let Ok(value) = HeaderValue::from_str(&other) {
            headers.insert("e2b-sandbox-id", value.clone());
            headers.insert("e2b-sandbox-port", value);
        }
        prop_assert_eq!(destination(&headers, None, &path), sandbox(&id, port));
    }
}
