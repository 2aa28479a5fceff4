//! The only mapping of errors to responses. Every error response has the body `{"code", "message"}`.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use error_chain::chain;
use serde::Serialize;
use tracing::error;

use crate::error::ServiceError;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");

/// The content type of every response.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// An error response.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ApiError {
    code: u16,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    /// `should-retry` header: whether clients retry automatically.
    #[serde(skip)]
    should_retry: Option<bool>,
    /// `Retry-After` header, in seconds.
    #[serde(skip)]
    retry_after: Option<u32>,
}

impl ApiError {
    /// Creates an error with a status.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code: status.as_u16(),
            message: message.into(),
            error_code: None,
            // After an internal error the state of the request is unknown.
            should_retry: status.is_server_error().then_some(false),
            retry_after: None,
        }
    }

    /// Creates an error with status 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    fn with_error_code(mut self, error_code: &'static str) -> Self {
        self.error_code = Some(error_code);
        self
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let message = error.to_string();
        match error {
            ServiceError::Invalid(_) => Self::bad_request(message),
            ServiceError::NotFound(_)
            | ServiceError::TemplateNotFound { .. }
            | ServiceError::TagNotFound { .. }
            | ServiceError::NoArtefacts(_)
            | ServiceError::SnapshotNotFound { .. } => Self::new(StatusCode::NOT_FOUND, message),
            ServiceError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .with_error_code("idempotency_request_mismatch"),
            ServiceError::CreateInProgress => Self {
                should_retry: Some(true),
                retry_after: Some(1),
                ..Self::new(StatusCode::CONFLICT, message)
                    .with_error_code("idempotency_in_progress")
            },
            ServiceError::GuestUnresponsive(_) => Self {
                retry_after: Some(5),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    .with_error_code("sandbox_snapshot_guest_agent_unresponsive")
            },
            ServiceError::NotQuarantined(_) => Self::new(StatusCode::NOT_FOUND, message),
            ServiceError::GuestFailed(_) => Self {
                retry_after: Some(5),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    .with_error_code("sandbox_guest_agent_failed")
            },
            ServiceError::SnapshotDamaged(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
                .with_error_code("sandbox_snapshot_damaged"),
            ServiceError::Backoff {
                retry_after_secs, ..
            } => Self {
                retry_after: Some(retry_after_secs),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
            },
            ServiceError::NoDiskSpace { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, message)
            }
            ServiceError::Unsupported(_) => Self::new(StatusCode::NOT_IMPLEMENTED, message),
            ServiceError::Conflict(_) | ServiceError::NoRoom { .. } => {
                Self::new(StatusCode::CONFLICT, message)
            }
            ServiceError::Internal(source) => {
                error!(error = %chain(source.as_ref()), "failed to handle request");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the request failed inside the server",
                )
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &self);
        if let Some(retry) = self.should_retry {
            let value = HeaderValue::from_static(if retry { "true" } else { "false" });
            response.headers_mut().insert(SHOULD_RETRY, value);
        }
        if let Some(seconds) = self.retry_after {
            let value = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}

/// Builds a JSON response.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, JSON)], bytes).into_response(),
        Err(error) => {
            error!(error = %chain(&error), "failed to serialize response");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Feature;

    fn response_of(error: ServiceError) -> (u16, Option<&'static str>, [Option<String>; 2]) {
        let error = ApiError::from(error);
        let (code, error_code) = (error.code, error.error_code);
        let response = error.into_response();
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        assert_eq!(response.status().as_u16(), code);
        (
            code,
            error_code,
            [header("should-retry"), header("retry-after")],
        )
    }

    #[test]
    fn retryable_errors_set_should_retry() {
        let text = |text: &str| Some(text.to_owned());
        let in_progress = Some("idempotency_in_progress");
        assert_eq!(
            response_of(ServiceError::CreateInProgress),
            (409, in_progress, [text("true"), text("1")])
        );
        let mismatch = Some("idempotency_request_mismatch");
        assert_eq!(
            response_of(ServiceError::KeyReused),
            (422, mismatch, [None, None])
        );
        assert_eq!(
            response_of(ServiceError::Unsupported(Feature::Volumes)),
            (501, None, [text("false"), None])
        );
        let internal = ServiceError::internal(std::io::Error::other("secret"));
        assert_eq!(response_of(internal), (500, None, [text("false"), None]));
        let full = ServiceError::NoRoom {
            diagnostic: String::new(),
        };
        assert_eq!(response_of(full), (409, None, [None, None]));
    }
}
