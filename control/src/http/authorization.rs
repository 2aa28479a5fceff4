//! API keys, and the health route, which needs none.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::{
    error::{self, ApiError},
    handler::Service,
};
use crate::service::SandboxService;

/// The credentials of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credentials {
    Valid,
    Invalid,
    Missing,
}

fn credentials(service: &SandboxService, headers: &HeaderMap) -> Credentials {
    let key = headers.get("x-api-key").map(HeaderValue::as_bytes);
    let bearer = || {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    };
    let Some(given) = key.or_else(bearer) else {
        return Credentials::Missing;
    };
    let expected = service.config().api_key.expose().as_bytes();
    if given.ct_eq(expected).into() {
        Credentials::Valid
    } else {
        Credentials::Invalid
    }
}

/// Rejects requests without a valid key.
pub(super) async fn require_key(State(service): Service, request: Request, next: Next) -> Response {
    let message = match credentials(&service, request.headers()) {
        Credentials::Valid => return next.run(request).await,
        Credentials::Invalid => {
            "Invalid API key, please visit https://e2b.dev/docs/api-key for more information."
        }
        Credentials::Missing => "authorization header is missing",
    };
    ApiError::new(StatusCode::UNAUTHORIZED, message).into_response()
}

/// Reports that the API serves, and with a valid key the number of sandboxes.
pub(super) async fn health(State(service): Service, headers: HeaderMap) -> Response {
    let mut body = json!({ "status": "ok" });
    if credentials(&service, &headers) == Credentials::Valid {
        body["sandboxes"] = service.sandbox_count().await.into();
    }
    error::json(StatusCode::OK, &body)
}
