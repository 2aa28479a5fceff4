use proptest::prelude::*;
use serde_json::json;

use super::*;

fn validate(body: Value) -> Result<(), String> {
    let network: Network = serde_json::from_value(body).map_err(|error| error.to_string())?;
    network.validate().map_err(|failure| failure.to_string())
}

#[test]
fn valid_networks_are_accepted() {
    for body in [
        json!({}),
        json!({ "allowOut": ["1.2.3.4", "10.0.0.0/8", "2001:db8::/32"], "denyOut": ["0.0.0.0/0"] }),
        json!({ "allowOut": ["example.com", "*.Example.com", "*"], "denyOut": ["0.0.0.0/0"] }),
        json!({ "allowOut": ["example.com"], "allow_internet_access": false }),
        json!({ "egressProxy": null, "rules": null, "allowOut": null }),
        json!({ "egressProxy": { "address": "proxy.example:1080", "username": "u", "tls": { "enabled": true } } }),
        json!({ "rules": { "example.com": [{ "transform": { "headers": { "X-A": "1" } } }] } }),
        json!({ "rules": [{ "name": "n", "match": { "host": "h" }, "action": { "allow": true } }] }),
        json!({ "httpsPorts": [443, 8443], "dnsServers": ["8.8.8.8"] }),
        json!({ "maskRequestHost": "h:${PORT}" }),
        json!({ "maskRequestHost": "localhost:8080" }),
        json!({ "maskRequestHost": "[::1]:80" }),
    ] {
        assert_eq!(validate(body.clone()), Ok(()), "{body}");
    }
}

fn assert_rejected(body: &Value, message: &str) {
    let error = validate(body.clone()).unwrap_err();
    assert!(error.contains(message), "{body}: {error}");
}

#[test]
fn invalid_networks_are_rejected_by_entry() {
    for (body, message) in [
        (
            json!({ "denyOut": ["example.com"] }),
            "invalid denied CIDR example.com",
        ),
        (
            json!({ "denyOut": ["1.2.3.4/33"] }),
            "invalid denied CIDR 1.2.3.4/33",
        ),
        (
            json!({ "allowOut": ["1.2.3.4/x"] }),
            "invalid allowed entry 1.2.3.4/x",
        ),
        (
            json!({ "allowOut": ["1.2.3.400"] }),
            "invalid allowed entry 1.2.3.400",
        ),
        (
            json!({ "allowOut": ["a..b"], "denyOut": ["0.0.0.0/0"] }),
            "invalid allowed entry a..b",
        ),
        (
            json!({ "allowOut": ["example.com"] }),
            "When specifying allowed domains in allow out",
        ),
        (
            json!({ "egressProxy": { "address": "127.0.0.1:1080" } }),
            "is in a denied range",
        ),
        (
            json!({ "egressProxy": { "address": "[::ffff:10.0.0.1]:1080" } }),
            "is in a denied range",
        ),
        (
            json!({ "egressProxy": { "address": "proxy" } }),
            "invalid egress proxy address proxy",
        ),
        (json!({ "dnsServers": ["::1"] }), "invalid DNS server ::1"),
        (json!({ "httpsPorts": [0] }), "must not contain 0"),
        (
            json!({ "maskRequestHost": "a b" }),
            "maskRequestHost must be",
        ),
        (
            json!({ "maskRequestHost": "h:99999" }),
            "maskRequestHost must be",
        ),
        (
            json!({ "maskRequestHost": "u@h" }),
            "maskRequestHost must be",
        ),
        (json!({ "maskRequestHost": "" }), "maskRequestHost must be"),
        (json!({ "maskRequestHost": "ä" }), "maskRequestHost must be"),
    ] {
        assert_rejected(&body, message);
    }
}

#[test]
fn members_of_the_wrong_type_are_rejected() {
    for body in [
        json!({ "allowOut": "x" }),
        json!({ "rules": 7 }),
        json!({ "httpsPorts": [70000] }),
        json!({ "allowPublicTraffic": "no" }),
    ] {
        assert!(validate(body.clone()).is_err(), "{body}");
    }
}

#[test]
fn oversized_rules_are_rejected() {
    let many: BTreeMap<String, Value> = (0..11).map(|n| (format!("d{n}.x"), json!([]))).collect();
    let headers: BTreeMap<String, String> =
        (0..21).map(|n| (format!("x-{n}"), String::new())).collect();
    let transform =
        |headers: Value| json!({ "rules": { "d.x": [{ "transform": { "headers": headers } }] } });
    for (body, message) in [
        (json!({ "rules": many }), "more than 10 domains"),
        (
            json!({ "rules": { "d.x": [{}, {}] } }),
            "more than one transform",
        ),
        (transform(json!(headers)), "more than 20 headers"),
        (transform(json!({ "a b": "x" })), "invalid header name a b"),
        (
            transform(json!({ "x": "y".repeat(2049) })),
            "invalid value of the header x",
        ),
        (
            transform(json!({ "x": "a\nb" })),
            "invalid value of the header x",
        ),
    ] {
        assert_rejected(&body, message);
    }
}

#[test]
fn proxy_password_is_stored_and_not_returned() {
    let body = json!({ "egressProxy": { "address": "p.x:1", "password": "hush" }, "allowInternetAccess": true, "odd": 1 });
    let network: Network = serde_json::from_value(body).unwrap();
    let stored = network.to_stored().unwrap();
    assert_eq!(stored["egressProxy"]["password"], "hush");
    let read: Network = serde_json::from_value(stored).unwrap();
    assert_eq!(read, network);
    assert_eq!(
        network.redacted().unwrap(),
        json!({ "egressProxy": { "address": "p.x:1" } })
    );
}

#[test]
fn injected_secret_is_stored_and_not_returned() {
    let inject = |injection: Value| json!({ "rules": [{ "name": "n", "action": { "allow": true, "inject": [injection] } }] });
    let body = inject(json!({ "header": "X", "secret": "hush" }));
    let network: Network = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(network.to_stored(), Some(body));
    assert_eq!(network.redacted(), Some(inject(json!({ "header": "X" }))));
    // Rules of any shape are accepted.
    let odd = json!({ "rules": [{ "action": { "inject": { "secret": 1 } } }, { "action": 7 }] });
    let network: Network = serde_json::from_value(odd.clone()).unwrap();
    assert_eq!(network.redacted(), Some(odd));
}

proptest! {
    #[test]
    fn any_entry_is_validated_without_panic(entry in ".{0,80}") {
        drop(validate(json!({ "allowOut": [entry], "denyOut": [entry], "maskRequestHost": entry })));
        drop(validate(json!({ "egressProxy": { "address": entry }, "dnsServers": [entry], "rules": { entry: [] } })));
    }
}
