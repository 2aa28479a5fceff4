//! Path prefixes that address a sandbox, for clients that can use only one host name.
//!
//! The guest receives the path without `/sandbox/<id>/<port>`, and the prefix in `X-Forwarded-Prefix`. Paths in
//! `Location` and `Set-Cookie` of its responses get the prefix prepended.

use super::{address::Address, error::TargetError};

/// `/sandbox/<id>/<port>` as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Parses the beginning of a path. `None`: the path addresses no sandbox.
    pub(super) fn parse(path: &str) -> Option<Result<(Address, Self), TargetError>> {
        let rest = path.strip_prefix("/sandbox/")?;
        let mut parts = rest.splitn(3, '/');
        let (id, port) = (parts.next()?, parts.next()?);
        let address = Address::parse(id, port);
        Some(address.map(|address| (address, Self(format!("/sandbox/{id}/{port}")))))
    }

    /// Returns the value of `X-Forwarded-Prefix`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Rewrites a `Location` for the client; `None` if it needs no change. The guest may refer to itself by the
    /// `requested` host or by the `masked` one that it received.
    pub(crate) fn location(
        &self,
        location: &str,
        requested: &str,
        masked: Option<&str>,
    ) -> Option<String> {
        if let Some(path) = same_origin_path(location, requested) {
            let origin = location.strip_suffix(path)?;
            return (!self.contains(path)).then(|| format!("{origin}{}", self.prepend(path)));
        }
        // The client cannot resolve the masked host, so the result has no origin.
        let path = same_origin_path(location, masked?)?;
        Some(if self.contains(path) {
            path.to_owned()
        } else {
            self.prepend(path)
        })
    }

    /// Rewrites a `Set-Cookie` for the client; `None` if it needs no change.
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
                    Some(path) if path.starts_with('/') && !self.contains(path) => {
                        changed = true;
                        format!(" Path={}{path}", self.0)
                    }
                    _ => part.to_owned(),
                }
            })
            .collect();
        changed.then(|| parts.join(";"))
    }

    /// Prepends the prefix to a path of the guest. An empty path is the root.
    fn prepend(&self, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}{slash}{path}", self.0)
    }

    /// Returns whether a path is below the prefix already, because the guest honours `X-Forwarded-Prefix`.
    fn contains(&self, path: &str) -> bool {
        path.strip_prefix(&self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }
}

/// Returns a location from its path on, if it is absolute and its host, if any, is `host`.
fn same_origin_path<'a>(location: &'a str, host: &str) -> Option<&'a str> {
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
    let (authority, path) = rest.split_at_checked(end)?;
    (!host.is_empty() && host.eq_ignore_ascii_case(authority)).then_some(path)
}

#[cfg(test)]
mod tests;
