//! What a fuzzer calls: the readers of what strangers send, without a socket. Each must return, whatever it is given.

use coordinator::Access;
use http::{HeaderMap, HeaderValue};
use pool_api::Secret;

use crate::{
    access,
    host::{self, Destination, Target},
};

const DOMAIN: &str = "d.example";

/// Reads where a request is for, and whether it may go there. The input is its host, its path, and its fields with
/// sandbox, port and token, a line each, and after them what a guest answers as a location and as a cookie.
pub fn destination(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    let mut field = |name: &'static str, value: &[u8]| {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    };
    field("host", line());
    let path = String::from_utf8_lossy(line()).into_owned();
    field("e2b-sandbox-id", line());
    field("e2b-sandbox-port", line());
    field("e2b-traffic-access-token", line());
    let target = Target {
        headers: &headers,
        authority: Some("3000-ifuzz.d.example"),
        path: &path,
    };
    let Ok(Destination::Sandbox(address, prefix)) = host::destination(target, Some(DOMAIN)) else {
        return;
    };
    let access = Access {
        traffic_token: Some(Secret::new("secret")),
        envd_token: Some(Secret::new("secret")),
        ..Access::default()
    };
    // Nobody gets in without the token, whatever the path.
    let is_right = headers
        .get("e2b-traffic-access-token")
        .is_some_and(|token| token == "secret");
    let permit = access::check(&address, &access, &headers, &path);
    assert!(permit.is_err() || is_right || address.port.get() == guest_api::envd::AGENT_PORT);
    let Some(prefix) = prefix else { return };
    assert!(prefix.strip(path.as_bytes()).starts_with(b"/"));
    let text = String::from_utf8_lossy(line()).into_owned();
    let _location = prefix.location(&text, DOMAIN, Some("masked"));
    let _cookie = prefix.cookie(&text);
}
