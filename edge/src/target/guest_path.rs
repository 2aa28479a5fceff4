//! The request target in origin form.

use std::borrow::Cow;

use pingora::http::RequestHeader;

use super::prefix::Prefix;

/// A path with its query, as the guest receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestPath(Vec<u8>);

impl GuestPath {
    /// Converts a request target into origin form. `None`: parsers disagree about its path; `init`, for example, is a host
    /// to some.
    pub(super) fn of(request: &RequestHeader) -> Option<Self> {
        let target = request.raw_path();
        if target.starts_with(b"/") || target == b"*" {
            return Some(Self(target.to_vec()));
        }
        let has_scheme = |scheme: &[u8]| {
            let start = target.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        if !has_scheme(b"http://") && !has_scheme(b"https://") {
            return None;
        }
        let path = request.uri.path_and_query();
        Some(Self(
            path.map_or("/", |path| path.as_str()).as_bytes().to_vec(),
        ))
    }

    /// Removes the prefix that addressed the sandbox.
    pub(super) fn without(&self, prefix: &Prefix) -> Self {
        Self(match self.0.strip_prefix(prefix.as_str().as_bytes()) {
            Some(rest) if rest.first() == Some(&b'/') => rest.to_vec(),
            Some(rest) => [b"/", rest].concat(),
            None => self.0.clone(),
        })
    }

    /// Returns path and query as they are sent.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path alone, still percent-encoded.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        let end = self.0.iter().position(|byte| matches!(byte, b'?' | b'#'));
        let path = end.and_then(|end| self.0.get(..end)).unwrap_or(&self.0);
        String::from_utf8_lossy(path)
    }
}
