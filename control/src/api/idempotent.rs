//! `Idempotency-Key`.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};

use super::error::ApiError;
use crate::sandboxes::Key;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const LONGEST: usize = 255;

/// The key a request carries, if it carries one.
#[derive(Debug)]
pub(crate) struct Idempotent(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Idempotent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(HEADER) else {
            return Ok(Self(None));
        };
        let allowed = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
        let text = value.to_str().unwrap_or_default();
        if (1..=LONGEST).contains(&text.len()) && text.as_bytes().iter().all(allowed) {
            Ok(Self(Some(text.to_owned())))
        } else {
            Err(ApiError::bad(
                "Idempotency-Key must be 1 to 255 characters of a-z, 0-9 and '-'",
            ))
        }
    }
}

impl Idempotent {
    /// The key of this request: the same path with the same body is the same request.
    pub(super) fn key(self, path: &str, body: &[u8]) -> Option<Key> {
        self.0.map(|text| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(path.as_bytes()).update(b"\0").update(body);
            Key {
                text,
                digest: hasher.finalize().to_hex().to_string(),
            }
        })
    }
}
