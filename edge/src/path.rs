//! Sandboxes named in the path, for clients that have one host name only.
//!
//! `/sandbox/<id>/<port>/<rest>` is `<rest>` of the port. The guest is shown the rest, and the prefix in
//! `X-Forwarded-Prefix`; where its answer names a path of its own, the prefix is put back.

use pool_api::{Port, SandboxId};

use crate::host::{Address, HostError, sandbox_id};

/// What comes before the path that the guest is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix(String);

/// Reads a path; `None` when it names no sandbox.
pub(crate) fn parse(path: &str) -> Option<Result<(Address, Prefix), HostError>> {
    let rest = path.strip_prefix("/sandbox/")?;
    let mut parts = rest.splitn(3, '/');
    let (id, port) = (parts.next()?, parts.next()?);
    Some(address(id, port).map(|address| (address, Prefix(format!("/sandbox/{id}/{port}")))))
}

fn address(id: &str, port: &str) -> Result<Address, HostError> {
    let sandbox: SandboxId = sandbox_id(id).ok_or(HostError::Sandbox)?;
    let port: Port = port.parse().map_err(|_| HostError::Port)?;
    Ok(Address { sandbox, port })
}

impl Prefix {
    /// As `X-Forwarded-Prefix` says it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The target that the guest is shown; `target` is path and query.
    pub(crate) fn strip(&self, target: &[u8]) -> Vec<u8> {
        match target.strip_prefix(self.0.as_bytes()) {
            Some(rest) if rest.first() == Some(&b'/') => rest.to_vec(),
            Some(rest) => [b"/", rest].concat(),
            None => target.to_vec(),
        }
    }

    /// A `Location`, as the client must see it; `None` when it is right as it is. The guest may speak of itself by the
    /// host that was asked for, or by the one it was shown.
    pub(crate) fn location(
        &self,
        location: &str,
        asked: &str,
        masked: Option<&str>,
    ) -> Option<String> {
        if let Some(path) = own_path(location, asked) {
            let before = location.strip_suffix(path)?;
            return (!self.covers(path)).then(|| format!("{before}{}", self.over(path)));
        }
        // The client knows nothing of the other host.
        let path = own_path(location, masked?)?;
        Some(if self.covers(path) {
            path.to_owned()
        } else {
            self.over(path)
        })
    }

    /// A path of the guest's, under the prefix. A path may be empty: the root is meant.
    fn over(&self, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}{slash}{path}", self.0)
    }

    /// A `Set-Cookie`, as the client must see it; `None` when it is right as it is.
    pub(crate) fn cookie(&self, cookie: &str) -> Option<String> {
        let mut changed = false;
        let parts: Vec<String> = cookie
            .split(';')
            .enumerate()
            .map(|(index, part)| {
                let path = part
                    .split_once('=')
                    .filter(|(name, _)| index > 0 && name.trim().eq_ignore_ascii_case("path"))
                    .map(|(_, path)| path.trim());
                match path {
                    Some(path) if path.starts_with('/') && !self.covers(path) => {
                        changed = true;
                        format!(" Path={}{path}", self.0)
                    }
                    _ => part.to_owned(),
                }
            })
            .collect();
        changed.then(|| parts.join(";"))
    }

    /// Whether a path lies under the prefix already: the guest heeds `X-Forwarded-Prefix`.
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }
}

/// The part of a location from its absolute path on, if it is one of the guest's own.
fn own_path<'a>(location: &'a str, own: &str) -> Option<&'a str> {
    let after_scheme = match location.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            Some(rest)
        }
        Some((scheme, _)) if scheme.bytes().all(|c| c.is_ascii_alphanumeric()) => return None,
        _ => location.strip_prefix("//"),
    };
    let Some(rest) = after_scheme else {
        return location.starts_with('/').then_some(location);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end)?;
    (!own.is_empty() && own.eq_ignore_ascii_case(host)).then_some(path)
}

#[cfg(test)]
mod tests;
