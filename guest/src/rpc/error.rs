//! How a call fails.

use http::StatusCode;
use serde::Serialize;

/// Why a call failed, as its caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RpcError {
    pub(super) code: Code,
    message: String,
}

/// Connect's codes, those that are used.
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

    /// A call that took longer than its caller allowed. The text is that of E2B's agent.
    pub(crate) fn too_late() -> Self {
        Self::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
}

impl Code {
    /// The HTTP status of a unary call that failed so.
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
mod test {
    use super::*;

    #[test]
    fn the_code_is_a_word() {
        let text = serde_json::to_string(&RpcError::new(Code::NotFound, "x")).unwrap();
        assert_eq!(text, r#"{"code":"not_found","message":"x"}"#);
    }
}
