//! Which sandbox and port a request is for.
//!
//! `<port>-<id>.<anything>` names them in the host; further `-` parts are ignored, for old clients add one. On
//! `localhost`, an IP address or `sandbox.<domain>` the header fields `E2b-Sandbox-Id` and `E2b-Sandbox-Port` do. Every
//! other host is the API's.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pool_api::{Port, SandboxId};

const ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The API.
    Api,
    /// A port of a sandbox.
    Sandbox(Address),
}

/// A port of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Which sandbox.
    pub(crate) sandbox: SandboxId,
    /// Which port of it.
    pub(crate) port: Port,
}

/// A request that names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    /// Not a host name.
    #[error("Invalid host")]
    Host,
    /// Not a sandbox id.
    #[error("Invalid sandbox ID")]
    Sandbox,
    /// Not a port.
    #[error("Invalid sandbox port")]
    Port,
    /// Only one of the two header fields, or none where they are needed.
    #[error("missing header")]
    MissingHeader,
}

/// Reads the destination off a request's header fields. `authority` is the host of its target, if that has one.
pub(crate) fn destination(
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<Destination, HostError> {
    let host = match single(headers, &header::HOST).map_err(|Twice| HostError::Host)? {
        Some(host) => host.to_str().map_err(|_| HostError::Host)?,
        None => authority.unwrap_or_default(),
    };
    let name = without_port(host).ok_or(HostError::Host)?;
    if name.is_empty() || name.eq_ignore_ascii_case("localhost") || is_address(name) {
        return Ok(from_headers(headers)?.map_or(Destination::Api, Destination::Sandbox));
    }
    let label = name.split('.').next().unwrap_or_default();
    if label.len() < name.len() && label.eq_ignore_ascii_case("sandbox") {
        return from_headers(headers)?
            .map(Destination::Sandbox)
            .ok_or(HostError::MissingHeader);
    }
    from_label(label)
}

fn from_label(label: &str) -> Result<Destination, HostError> {
    let mut parts = label.split('-');
    let (port, Some(sandbox)) = (parts.next().unwrap_or_default(), parts.next()) else {
        return Ok(Destination::Api);
    };
    if port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(Destination::Api);
    }
    let port = port.parse().map_err(|_| HostError::Port)?;
    let sandbox = sandbox
        .to_ascii_lowercase()
        .parse()
        .map_err(|_| HostError::Sandbox)?;
    Ok(Destination::Sandbox(Address { sandbox, port }))
}

fn from_headers(headers: &HeaderMap) -> Result<Option<Address>, HostError> {
    let sandbox = single(headers, &ID).map_err(|Twice| HostError::Sandbox)?;
    let port = single(headers, &PORT).map_err(|Twice| HostError::Port)?;
    match (sandbox, port) {
        (None, None) => Ok(None),
        (Some(sandbox), Some(port)) => {
            let sandbox = sandbox
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(HostError::Sandbox)?;
            let port = port
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(HostError::Port)?;
            Ok(Some(Address { sandbox, port }))
        }
        _ => Err(HostError::MissingHeader),
    }
}

/// A header field that must not be given twice was.
struct Twice;

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Twice> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        Err(Twice)
    } else {
        Ok(first)
    }
}

/// The host without its port, `[..]` of an IPv6 address kept; `None` when it is no host.
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
    let port_is_fine =
        port.is_empty() || port.strip_prefix(':')?.bytes().all(|c| c.is_ascii_digit());
    port_is_fine.then_some(name)
}

fn is_address(name: &str) -> bool {
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
