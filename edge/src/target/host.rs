//! The host of a request.

use std::net::IpAddr;

use http::{Version, header};
use pingora::http::RequestHeader;

use super::{
    address::{DuplicateHeader, unique},
    error::TargetError,
};

/// Returns the name of the requested host without its port: from `Host`, else from the request target.
pub(super) fn name(request: &RequestHeader) -> Result<&str, TargetError> {
    let host = unique(&request.headers, &header::HOST);
    let host = match host.map_err(|DuplicateHeader| TargetError::Host)? {
        Some(host) => host.to_str().map_err(|_| TargetError::Host)?,
        // RFC 9112 3.2: a request of HTTP/1.1 has a `Host`.
        None if request.version == Version::HTTP_11 => return Err(TargetError::Host),
        // The authority of HTTP/1.0's absolute form is not parsed, and must not be overlooked.
        None if request.version < Version::HTTP_2 && !request.raw_path().starts_with(b"/") => {
            return Err(TargetError::Host);
        }
        None => request.uri.host().unwrap_or_default(),
    };
    without_port(host).ok_or(TargetError::Host)
}

/// Returns whether the host does not determine the destination: it is absent, `localhost` or an IP address.
pub(super) fn is_neutral(name: &str) -> bool {
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || is_ip_address(name)
}

/// Returns whether the host is the API's on the gateway's own domain.
pub(super) fn is_api(name: &str, domain: &str) -> bool {
    let (label, rest) = name.split_once('.').unwrap_or_default();
    name.eq_ignore_ascii_case(domain)
        || (label.eq_ignore_ascii_case("api") && rest.eq_ignore_ascii_case(domain))
}

/// Returns whether the host is directly below `domain`.
pub(super) fn is_subdomain_of(name: &str, domain: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| parent);
    parent.is_some_and(|parent| parent.eq_ignore_ascii_case(domain))
}

/// Returns the host without its port; an IPv6 address keeps its brackets. `None`: it is not a host.
fn without_port(host: &str) -> Option<&str> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._:[]%~".contains(&c);
    if !host.bytes().all(allowed) {
        return None;
    }
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at_checked(end)?;
    let is_port_valid =
        port.is_empty() || port.strip_prefix(':')?.bytes().all(|c| c.is_ascii_digit());
    is_port_valid.then_some(name)
}

fn is_ip_address(name: &str) -> bool {
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse::<IpAddr>().is_ok()
}
