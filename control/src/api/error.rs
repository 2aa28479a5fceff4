//! The only mapping of failures to HTTP. Every error has the body `{"code", "message"}`.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::error;

use crate::sandboxes::Failure;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");

/// The content type of every answer.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// An error as the wire has it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ApiError {
    code: u16,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    /// Whether the client may ask again by itself; `None`: nothing is said of that.
    #[serde(skip)]
    should_retry: Option<bool>,
    /// After how many seconds.
    #[serde(skip)]
    retry_after: Option<u32>,
}

impl ApiError {
    /// An error with this status.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code: status.as_u16(),
            message: message.into(),
            error_code: None,
            // Nobody knows how far a request came that failed inside.
            should_retry: status.is_server_error().then_some(false),
            retry_after: None,
        }
    }

    fn coded(mut self, error_code: &'static str) -> Self {
        self.error_code = Some(error_code);
        self
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
            Failure::NotFound(_) | Failure::NoTemplate(_) | Failure::NoSnapshot { .. } => {
                Self::new(StatusCode::NOT_FOUND, message)
            }
            Failure::OtherRequest => Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .coded("idempotency_request_mismatch"),
            Failure::StillCreating => Self {
                should_retry: Some(true),
                retry_after: Some(1),
                ..Self::new(StatusCode::CONFLICT, message).coded("idempotency_in_progress")
            },
            Failure::Unresponsive(_) => Self {
                retry_after: Some(5),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    .coded("sandbox_snapshot_guest_agent_unresponsive")
            },
            Failure::Later(_) => Self::new(StatusCode::NOT_IMPLEMENTED, message),
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

/// A JSON answer with the content type the contract names.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, JSON)], bytes).into_response(),
        Err(error) => {
            error!(%error, "could not write an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn told(failure: Failure) -> (u16, Option<&'static str>, [Option<String>; 2]) {
        let error = ApiError::from(failure);
        let (code, word) = (error.code, error.error_code);
        let response = error.into_response();
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        assert_eq!(response.status().as_u16(), code);
        (code, word, [header("should-retry"), header("retry-after")])
    }

    #[test]
    fn who_may_ask_again_is_told_so() {
        let own = |text: &str| Some(text.to_owned());
        let busy = Some("idempotency_in_progress");
        assert_eq!(
            told(Failure::StillCreating),
            (409, busy, [own("true"), own("1")])
        );
        let other = Some("idempotency_request_mismatch");
        assert_eq!(told(Failure::OtherRequest), (422, other, [None, None]));
        assert_eq!(
            told(Failure::Later("this is")),
            (501, None, [own("false"), None])
        );
        let inside = Failure::internal(std::io::Error::other("secret"));
        assert_eq!(told(inside), (500, None, [own("false"), None]));
        assert_eq!(
            told(Failure::NoRoom(String::new())),
            (409, None, [None, None])
        );
    }
}
