//! Step 1 of a request: resolves the sandbox and port it addresses, and the path that the guest receives.
//!
//! A request addresses a port of a sandbox by one of:
//!
//! - the host `<port>-<id>.<domain>`; further `-` parts are ignored, because old clients append a client id;
//! - the headers `E2b-Sandbox-Id` and `E2b-Sandbox-Port`, if the host is `localhost`, an IP address or
//!   `sandbox.<domain>`;
//! - the path `/sandbox/<id>/<port>/<rest>`, on `localhost`, on an IP address and on hosts of the API.
//!
//! Every other host belongs to the API, except that an unknown subdomain of the gateway's own domain is an error.
//!
//! [`Target::guest_path`] is computed here once. The access check and the rewrite towards the guest both use it, so that
//! the guest receives exactly the path that was checked.

mod address;
mod error;
mod guest_path;
mod host;
mod prefix;

use pingora::http::RequestHeader;

pub(crate) use self::{
    address::Address, error::TargetError, guest_path::GuestPath, prefix::Prefix,
};

/// The party that serves a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The API.
    Api,
    /// A port of a sandbox.
    Sandbox(Target),
}

/// A port of a sandbox and a path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The sandbox and the port.
    pub(crate) address: Address,
    /// The path and query that the guest receives.
    pub(crate) guest_path: GuestPath,
    /// The part of the path that addressed the sandbox, if the path did.
    pub(crate) prefix: Option<Prefix>,
}

/// Resolves the destination of a request. `domain` is the gateway's own domain.
pub(crate) fn resolve(
    request: &RequestHeader,
    domain: Option<&str>,
) -> Result<Destination, TargetError> {
    let guest_path = GuestPath::of(request).ok_or(TargetError::RequestTarget)?;
    let host = host::name(request)?;
    if host::is_neutral(host) {
        return match Address::from_headers(&request.headers)? {
            Some(address) => Ok(direct(address, guest_path)),
            None => by_path(&guest_path),
        };
    }
    if domain.is_some_and(|domain| host::is_api(host, domain)) {
        return by_path(&guest_path);
    }
    let label = host.split('.').next().unwrap_or_default();
    if label.len() < host.len() && label.eq_ignore_ascii_case("sandbox") {
        let address = Address::from_headers(&request.headers)?;
        let address = address.ok_or(TargetError::MissingHeader)?;
        return Ok(direct(address, guest_path));
    }
    match Address::from_label(label)? {
        Some(address) => Ok(direct(address, guest_path)),
        None if domain.is_some_and(|domain| host::is_subdomain_of(host, domain)) => {
            Err(if label.contains('-') {
                TargetError::Port
            } else {
                TargetError::Host
            })
        }
        None => by_path(&guest_path),
    }
}

fn direct(address: Address, guest_path: GuestPath) -> Destination {
    Destination::Sandbox(Target {
        address,
        guest_path,
        prefix: None,
    })
}

fn by_path(path: &GuestPath) -> Result<Destination, TargetError> {
    let Some(parsed) = Prefix::parse(&path.path()) else {
        return Ok(Destination::Api);
    };
    let (address, prefix) = parsed?;
    Ok(Destination::Sandbox(Target {
        address,
        guest_path: path.without(&prefix),
        prefix: Some(prefix),
    }))
}

#[cfg(test)]
mod tests;
