//! Entry points for fuzzing: the parsers of untrusted input, without a socket. Each must return for every input.

use coordinator::Access;
use guest_api::envd;
use http::HeaderValue;
use pingora::http::RequestHeader;
use pool_api::Secret;

use crate::{
    access,
    forwarded::Forwarded,
    rewrite::Rewrite,
    target::{self, Destination},
};

const DOMAIN: &str = "d.example";
const TOKEN: &str = "secret";

/// Resolves, authorizes and rewrites a request. The input has one value per line: host, request target, sandbox id, port
/// and traffic token of the request, then `Location` and `Set-Cookie` of the response.
pub fn destination(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (host, path) = (line(), line());
    let Ok(mut request) = RequestHeader::build("GET", path, None) else {
        return;
    };
    for (name, value) in [
        ("host", host),
        ("e2b-sandbox-id", line()),
        ("e2b-sandbox-port", line()),
        ("e2b-traffic-access-token", line()),
    ] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(value)) {
            drop(request.append_header(name, value));
        }
    }
    let Ok(Destination::Sandbox(target)) = target::resolve(&request, Some(DOMAIN)) else {
        return;
    };
    let access = Access {
        traffic_token: Some(Secret::new(TOKEN)),
        envd_token: Some(Secret::new(TOKEN)),
        ..Access::default()
    };
    let is_token_valid = request
        .headers
        .get("e2b-traffic-access-token")
        .is_some_and(|token| token == TOKEN);
    let is_agent = target.address.port.get() == envd::AGENT_PORT;
    let is_permitted = access::check(&target, &access, &request.headers).is_ok();
    assert!(
        !is_permitted || is_token_valid || is_agent,
        "no access without a token"
    );
    if let Some(prefix) = &target.prefix {
        let location = String::from_utf8_lossy(line()).into_owned();
        let cookie = String::from_utf8_lossy(line()).into_owned();
        let _location = prefix.location(&location, DOMAIN, Some("masked"));
        let _cookie = prefix.cookie(&cookie);
    }
    let rewrite = Rewrite {
        guest_path: target.guest_path.clone(),
        prefix: target.prefix.clone(),
        masked_host: None,
        forwarded: Forwarded::unknown(),
    };
    if rewrite.rewrite_request(&mut request, None).is_ok() {
        assert_eq!(
            request.raw_path(),
            target.guest_path.as_bytes(),
            "the guest receives the checked path"
        );
    }
}
