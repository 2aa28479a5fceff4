use proptest::prelude::*;

use super::{Prefix, parse};
use crate::host::HostError;

fn prefix() -> Prefix {
    parse("/sandbox/iabc/80/").unwrap().unwrap().1
}

#[test]
fn a_path_names_port_and_sandbox() {
    for (path, prefix, rest) in [
        ("/sandbox/iabc/80/", "/sandbox/iabc/80", "/"),
        ("/sandbox/iabc/80", "/sandbox/iabc/80", "/"),
        ("/sandbox/iabc/80/a/b", "/sandbox/iabc/80", "/a/b"),
        (
            "/sandbox/iabc-6532622b/80//a",
            "/sandbox/iabc-6532622b/80",
            "//a",
        ),
        ("/sandbox/IABC/80/x", "/sandbox/IABC/80", "/x"),
    ] {
        let (address, got) = parse(path).unwrap().unwrap();
        assert_eq!((address.sandbox.as_str(), address.port.get()), ("iabc", 80));
        assert_eq!(got.as_str(), prefix);
        assert_eq!(got.strip(path.as_bytes()), rest.as_bytes());
    }
    assert_eq!(prefix().strip(b"/sandbox/iabc/80?q=/x"), b"/?q=/x");
    for path in [
        "/",
        "/sandbox",
        "/sandbox/",
        "/sandbox/iabc",
        "/sandboxes/iabc/80/",
        "sandbox/i/1/",
    ] {
        assert_eq!(parse(path), None, "{path}");
    }
    for (path, error) in [
        ("/sandbox//80/", HostError::Sandbox),
        ("/sandbox/i_c/80/", HostError::Sandbox),
        ("/sandbox/%69abc/80/", HostError::Sandbox),
        ("/sandbox/../80/", HostError::Sandbox),
        ("/sandbox/iabc/", HostError::Port),
        ("/sandbox/iabc/0/", HostError::Port),
        ("/sandbox/iabc/http/", HostError::Port),
        ("/sandbox/iabc/65536/", HostError::Port),
    ] {
        assert_eq!(parse(path), Some(Err(error)), "{path}");
    }
}

#[test]
fn paths_of_the_guest_get_the_prefix_back() {
    for (from, to) in [
        ("/login", Some("/sandbox/iabc/80/login")),
        ("/", Some("/sandbox/iabc/80/")),
        ("/sandbox/iabc/80/login", None),
        ("/sandbox/iabc/80", None),
        (
            "/sandbox/iabc/8000",
            Some("/sandbox/iabc/80/sandbox/iabc/8000"),
        ),
        ("login", None),
        ("?a=/b", None),
        ("", None),
        (
            "http://own:3000/a?b",
            Some("http://own:3000/sandbox/iabc/80/a?b"),
        ),
        (
            "HTTPS://OWN:3000",
            Some("HTTPS://OWN:3000/sandbox/iabc/80/"),
        ),
        ("//own:3000/a", Some("//own:3000/sandbox/iabc/80/a")),
        ("//other/a", None),
        ("https://other/a", None),
        ("//", None),
        ("mailto://own:3000/a", None),
        (
            "/redirect?to=http://x/",
            Some("/sandbox/iabc/80/redirect?to=http://x/"),
        ),
    ] {
        assert_eq!(
            prefix().location(from, "own:3000", None).as_deref(),
            to,
            "{from}"
        );
    }
    for (from, to) in [
        ("http://mask/a", Some("/sandbox/iabc/80/a")),
        ("//mask", Some("/sandbox/iabc/80/")),
        ("http://mask/sandbox/iabc/80/a", Some("/sandbox/iabc/80/a")),
        ("http://other/a", None),
    ] {
        assert_eq!(
            prefix().location(from, "own:3000", Some("mask")).as_deref(),
            to,
            "{from}"
        );
    }
}

#[test]
fn cookies_keep_to_the_sandbox() {
    for (from, to) in [
        ("a=b; Path=/", Some("a=b; Path=/sandbox/iabc/80/")),
        (
            "a=b; path=/x; HttpOnly",
            Some("a=b; Path=/sandbox/iabc/80/x; HttpOnly"),
        ),
        ("a=b; Path=/sandbox/iabc/80/x", None),
        ("path=/; HttpOnly", None),
        ("a=b; Path=x", None),
        ("a=b", None),
    ] {
        assert_eq!(prefix().cookie(from).as_deref(), to, "{from}");
    }
}

proptest! {
    #[test]
    fn any_path_is_answered(path in "(/sandbox/)?[ -~]{0,60}|.*", field in ".*", host in ".{0,10}") {
        if let Some(Ok((address, prefix))) = parse(&path) {
            let rest = prefix.strip(path.as_bytes());
            prop_assert!(rest.starts_with(b"/"));
            prop_assert!(path.contains(&address.port.to_string()));
        }
        drop(prefix().location(&field, &host, Some(&path)));
        drop(prefix().cookie(&field));
    }

    #[test]
    fn what_is_put_back_is_stripped_again(rest in "/([a-z]{1,4}(/[a-z]{0,4}){0,3})?(\\?[a-z/]{0,5})?") {
        let prefix = prefix();
        if let Some(seen) = prefix.location(&rest, "", None) {
            prop_assert_eq!(prefix.strip(seen.as_bytes()), rest.as_bytes());
            prop_assert_eq!(prefix.location(&seen, "", None), None);
        }
    }

    #[test]
    fn every_sandbox_path_is_understood(id in "[a-z0-9]{1,57}", client in "(-[a-z0-9]{1,8})?", port in 1u16.., rest in "(/[ -~&&[^/]]{0,5}){0,3}") {
        let path = format!("/sandbox/{id}{client}/{port}{rest}");
        let (address, _) = parse(&path).unwrap().unwrap();
        prop_assert_eq!((address.sandbox.as_str(), address.port.get()), (id.as_str(), port));
    }
}
