//! The only mapping of failures to HTTP. Every error has the body `{"code", "message"}`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::error;

use crate::sandboxes::Failure;

/// An error as the wire has it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ApiError {
    code: u16,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
}

impl ApiError {
    /// An error with this status.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code: status.as_u16(),
            message: message.into(),
            error_code: None,
        }
    }

    /// The caller's mistake.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Invalid(_) => Self::bad(message),
            Failure::InvalidCode { error_code, .. } => Self {
                error_code: Some(error_code),
                ..Self::bad(message)
            },
            Failure::NotFound(_) | Failure::NoTemplate(_) => {
                Self::new(StatusCode::NOT_FOUND, message)
            }
            Failure::Conflict(_) | Failure::NoRoom(_) => Self::new(StatusCode::CONFLICT, message),
            Failure::Internal(source) => {
                let mut chain = source.to_string();
                let mut cause = source.source();
                while let Some(error) = cause {
                    chain.push_str(": ");
                    chain.push_str(&error.to_string());
                    cause = error.source();
                }
                error!(error = %chain, "could not do as asked");
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
        json(status, &self)
    }
}

/// A JSON answer with the content type the contract names.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let content = HeaderValue::from_static("application/json; charset=utf-8");
            (status, [(header::CONTENT_TYPE, content)], bytes).into_response()
        }
        Err(error) => {
            error!(%error, "could not write an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
