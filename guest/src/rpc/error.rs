//! Errors of calls.

use error_chain::chain;
use http::StatusCode;
use serde::Serialize;

use crate::user::UserError;

/// An error that is returned to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RpcError {
    pub(super) code: Code,
    message: String,
}

/// Connect's error codes that the agent uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unimplemented,
}

impl RpcError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Reports an exceeded timeout of the caller, in the words of E2B's agent.
    pub(crate) fn deadline_exceeded() -> Self {
        Self::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
}

impl From<UserError> for RpcError {
    fn from(error: UserError) -> Self {
        let code = match error {
            UserError::Unknown(_) => Code::Unauthenticated,
            UserError::Read(_) => Code::Internal,
        };
        Self::new(code, chain(&error).to_string())
    }
}

impl Code {
    /// The HTTP status of a failed unary call.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_serialized_in_snake_case() {
        let text = serde_json::to_string(&RpcError::new(Code::NotFound, "x")).unwrap();
        assert_eq!(text, r#"{"code":"not_found","message":"x"}"#);
    }
}
