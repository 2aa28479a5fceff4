use proptest::prelude::*;

use super::Prefix;

fn prefix() -> Prefix {
    Prefix::parse("/sandbox/iabc/80/").unwrap().unwrap().1
}

#[test]
fn location_paths_get_the_prefix() {
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
fn cookie_paths_get_the_prefix() {
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
    fn arbitrary_paths_and_values_do_not_panic(
        path in "(/sandbox/)?[ -~]{0,60}|.*",
        value in ".*",
        host in ".{0,10}",
    ) {
        if let Some(Ok((address, _))) = Prefix::parse(&path) {
            prop_assert!(path.contains(&address.port.to_string()));
        }
        drop(prefix().location(&value, &host, Some(&path)));
        drop(prefix().cookie(&value));
    }

    #[test]
    fn location_is_rewritten_once(path in "/([a-z]{1,4}(/[a-z]{0,4}){0,3})?(\\?[a-z/]{0,5})?") {
        let prefix = prefix();
        let rewritten = prefix.location(&path, "", None).unwrap();
        prop_assert_eq!(rewritten.strip_prefix(prefix.as_str()), Some(path.as_str()));
        prop_assert_eq!(prefix.location(&rewritten, "", None), None);
    }
}
