//! Connect, as its JSON codec goes over HTTP/1.1.
//!
//! Written by hand and apart from what is called: the procedures hand over and take values, and know neither envelopes
//! nor HTTP.

mod envelope;

use std::time::Duration;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::envelope::{decode_one, encode, encode_end};
use crate::respond::{self, Answer};

/// The content type of a unary call.
const UNARY: &str = "application/json";
/// The content type of a stream.
const STREAM: &str = "application/connect+json";

/// Standard base64, padded or not, as JSON has it for bytes.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a call failed, as its caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RpcError {
    code: Code,
    message: String,
}

/// Connect's codes, those that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    InvalidArgument,
    NotFound,
    FailedPrecondition,
    Unauthenticated,
    Unimplemented,
    Internal,
}

impl RpcError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The answer of a unary call that failed.
    pub(crate) fn into_unary(self) -> Answer {
        let status = match self.code {
            Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut answer = respond::json(status, &self);
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(UNARY));
        answer
    }

    /// The answer of a streaming call that failed before its first message.
    pub(crate) fn into_stream(self) -> Answer {
        stream(respond::bytes(encode_end(Some(&self))))
    }
}

/// The answer of a unary call.
pub(crate) fn unary(value: &impl Serialize) -> Answer {
    let mut answer = respond::json(StatusCode::OK, value);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(UNARY));
    answer
}

/// Makes an answer the stream of a call.
pub(crate) fn stream(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(STREAM));
    answer
}

/// Whether a request is of this kind; `None` when it is of neither, and not to be answered in Connect.
pub(crate) fn is_stream(headers: &HeaderMap) -> Option<bool> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next()?.trim();
    if kind.eq_ignore_ascii_case(STREAM) {
        Some(true)
    } else if kind.eq_ignore_ascii_case(UNARY) {
        Some(false)
    } else {
        None
    }
}

/// What `Connect-Timeout-Ms` says: at most ten digits of milliseconds.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, RpcError> {
    let Some(value) = headers.get("connect-timeout-ms") else {
        return Ok(None);
    };
    let digits = value.to_str().ok().filter(|text| {
        (1..=10).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
    });
    let wrong = || {
        RpcError::new(
            Code::InvalidArgument,
            "connect-timeout-ms is not 1 to 10 digits",
        )
    };
    let millis = digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(wrong)?;
    Ok(Some(Duration::from_millis(millis)))
}

/// Reads a message.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, RpcError> {
    let json = if json.is_empty() { b"{}" } else { json };
    serde_json::from_slice(json)
        .map_err(|error| RpcError::new(Code::InvalidArgument, format!("decode message: {error}")))
}

/// The user that `Authorization: Basic` names, if there is one.
pub(crate) fn basic_user(headers: &HeaderMap) -> Result<Option<String>, RpcError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let user = value.to_str().ok().and_then(|text| {
        let (scheme, credentials) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then_some(())?;
        let decoded = String::from_utf8(from_base64(credentials.trim())?).ok()?;
        Some(decoded.split_once(':')?.0.to_owned())
    });
    match user {
        Some(user) => Ok(Some(user)),
        None => Err(RpcError::new(
            Code::Unauthenticated,
            "authorization is not Basic with a user name",
        )),
    }
}

/// Bytes as JSON has them.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Bytes as JSON has them; `None` when the text is not base64.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn with(name: &'static str, value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
        headers
    }

    #[test]
    fn a_user_is_named_by_basic_authorization() {
        let user = |text: &str| basic_user(&with("authorization", text.as_bytes()));
        assert_eq!(user("Basic cm9vdDo=").unwrap().as_deref(), Some("root"));
        assert_eq!(user("basic cm9vdDo").unwrap().as_deref(), Some("root"));
        assert_eq!(basic_user(&HeaderMap::new()), Ok(None));
        for bad in ["Bearer cm9vdDo=", "Basic", "Basic ???", "Basic cm9vdA=="] {
            assert_eq!(user(bad).unwrap_err().code, Code::Unauthenticated, "{bad}");
        }
    }

    #[test]
    fn a_timeout_is_digits() {
        let read = |text: &str| timeout(&with("connect-timeout-ms", text.as_bytes()));
        assert_eq!(read("1500"), Ok(Some(Duration::from_millis(1500))));
        for bad in ["", "-1", "+1", "1s", "12345678901"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_code_is_a_word() {
        let text = serde_json::to_string(&RpcError::new(Code::NotFound, "x")).unwrap();
        assert_eq!(text, r#"{"code":"not_found","message":"x"}"#);
    }

    #[test]
    fn the_content_type_tells_streams_from_calls() {
        let read = |text: &str| is_stream(&with("content-type", text.as_bytes()));
        assert_eq!(read("application/connect+json"), Some(true));
        assert_eq!(read("application/json; charset=utf-8"), Some(false));
        assert_eq!(read("application/grpc"), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(value: Vec<u8>) {
            let _user = basic_user(&with("authorization", &value));
            let _timeout = timeout(&with("connect-timeout-ms", &value));
            let _stream = is_stream(&with("content-type", &value));
        }

        #[test]
        fn bytes_survive_base64(bytes: Vec<u8>) {
            prop_assert_eq!(from_base64(&to_base64(&bytes)), Some(bytes));
        }
    }
}
