//! The `Idempotency-Key` header.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};

use super::error::ApiError;
use crate::service::IdempotencyKey;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_LEN: usize = 255;

/// The header's value, if the request has one.
#[derive(Debug)]
pub(super) struct IdempotencyHeader(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyHeader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(HEADER) else {
            return Ok(Self(None));
        };
        let allowed = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
        let text = value.to_str().unwrap_or_default();
        if (1..=MAX_LEN).contains(&text.len()) && text.as_bytes().iter().all(allowed) {
            Ok(Self(Some(text.to_owned())))
        } else {
            Err(ApiError::bad_request(
                "Idempotency-Key must be 1 to 255 characters of a-z, 0-9 and '-'",
            ))
        }
    }
}

impl IdempotencyHeader {
    /// The key with the digest of the request's path and body.
    pub(super) fn into_key(self, path: &str, body: &[u8]) -> Option<IdempotencyKey> {
        self.0.map(|text| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(path.as_bytes()).update(b"\0").update(body);
            IdempotencyKey {
                text,
                digest: hasher.finalize().to_hex().to_string(),
            }
        })
    }
}
