//! The API key of a request: checked before the API is dialed. The API checks it again.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pool_api::Secret;
use subtle::ConstantTimeEq;

/// The header with the key.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Routes that need no key.
const HEALTH_PATHS: [&str; 2] = ["/health", "/cubeapi/v1/health"];

/// The key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiKey {
    /// It is the gateway's.
    Valid,
    /// It is another one.
    Invalid,
    /// There is none.
    Missing,
}

/// Checks the key in `X-API-Key`, or in `Authorization` without one.
pub(crate) fn check(headers: &HeaderMap, key: &Secret) -> ApiKey {
    let given = headers.get(API_KEY).map(HeaderValue::as_bytes);
    let bearer = || bearer(headers.get(header::AUTHORIZATION)?);
    match given.or_else(bearer) {
        None => ApiKey::Missing,
        Some(given) if is_key(given, key) => ApiKey::Valid,
        Some(_) => ApiKey::Invalid,
    }
}

/// Returns whether a path is a health check.
pub(crate) fn is_health(path: &str) -> bool {
    HEALTH_PATHS.contains(&path)
}

/// Returns the token of an `Authorization: Bearer` header.
pub(crate) fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Compares a key in constant time.
pub(crate) fn is_key(given: &[u8], key: &Secret) -> bool {
    given.ct_eq(key.expose().as_bytes()).into()
}
