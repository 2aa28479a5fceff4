//! Which sandbox and port a request is for.
//!
//! `<port>-<id>.<anything>` names them in the host; further `-` parts are ignored, for old clients add one. On
//! `localhost`, an IP address or `sandbox.<domain>` the header fields `E2b-Sandbox-Id` and `E2b-Sandbox-Port` do. Every
//! other host is the API's, but for those below the gateway's own domain, which name nothing; and there, or on `localhost`
//! or an IP address without those fields, a path may name them.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pool_api::{Port, SandboxId};

use crate::path::{self, Prefix};

const ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The API.
    Api,
    /// A port of a sandbox, and what of the path named it, if it did.
    Sandbox(Address, Option<Prefix>),
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

/// What of a request says where it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// Its header fields.
    pub(crate) headers: &'a HeaderMap,
    /// The host of its target, if that has one.
    pub(crate) authority: Option<&'a str>,
    /// The path of its target.
    pub(crate) path: &'a str,
}

/// Reads the destination off a request. `domain` is the domain of this gateway.
pub(crate) fn destination(
    target: Target<'_>,
    domain: Option<&str>,
) -> Result<Destination, HostError> {
    let headers = target.headers;
    let host = match single(headers, &header::HOST).map_err(|Twice| HostError::Host)? {
        Some(host) => host.to_str().map_err(|_| HostError::Host)?,
        None => target.authority.unwrap_or_default(),
    };
    let name = without_port(host).ok_or(HostError::Host)?;
    if name.is_empty() || name.eq_ignore_ascii_case("localhost") || is_address(name) {
        return match from_headers(headers)? {
            Some(address) => Ok(Destination::Sandbox(address, None)),
            None => from_path(target.path),
        };
    }
    if domain.is_some_and(|domain| is_api(name, domain)) {
        return from_path(target.path);
    }
    let label = name.split('.').next().unwrap_or_default();
    if label.len() < name.len() && label.eq_ignore_ascii_case("sandbox") {
        let address = from_headers(headers)?.ok_or(HostError::MissingHeader)?;
        return Ok(Destination::Sandbox(address, None));
    }
    match from_label(label)? {
        Some(address) => Ok(Destination::Sandbox(address, None)),
        // Meant to be a sandbox's.
        None if domain.is_some_and(|domain| is_below(name, domain)) => Err(match label {
            label if label.contains('-') => HostError::Port,
            _ => HostError::Host,
        }),
        None => from_path(target.path),
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    let above = name.split_once('.').map(|(_, above)| above);
    above.is_some_and(|above| above.eq_ignore_ascii_case(domain))
}

fn is_api(name: &str, domain: &str) -> bool {
    let (label, rest) = name.split_once('.').unwrap_or_default();
    name.eq_ignore_ascii_case(domain)
        || (label.eq_ignore_ascii_case("api") && rest.eq_ignore_ascii_case(domain))
}

fn from_path(path: &str) -> Result<Destination, HostError> {
    match path::parse(path) {
        Some(named) => named.map(|(address, prefix)| Destination::Sandbox(address, Some(prefix))),
        None => Ok(Destination::Api),
    }
}

fn from_label(label: &str) -> Result<Option<Address>, HostError> {
    let Some((port, id)) = label.split_once('-') else {
        return Ok(None);
    };
    if port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(None);
    }
    let port = port.parse().map_err(|_| HostError::Port)?;
    let sandbox = id.split('-').next().and_then(sandbox_id);
    let sandbox = sandbox.ok_or(HostError::Sandbox)?;
    Ok(Some(Address { sandbox, port }))
}

/// A sandbox's id as clients write it: in any case, with the id of a client after it in old ones.
pub(crate) fn sandbox_id(text: &str) -> Option<SandboxId> {
    let (id, client) = text.split_once('-').unwrap_or((text, ""));
    if !client.bytes().all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    id.to_ascii_lowercase().parse().ok()
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
                .and_then(sandbox_id)
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
