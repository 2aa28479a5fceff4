//! Answers, and reading what a caller sends.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use serde::Serialize;

/// Any body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// Any answer.
pub(crate) type Answer = Response<Body>;

/// Most bytes of a JSON body.
pub(crate) const MAX_JSON: usize = 4 << 20;

/// A body that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("request body is longer than {MAX_JSON} bytes")]
    TooLong,
    #[error("read request body")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads a bounded body.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, BodyError>
where
    B: http_body_util::BodyExt<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, MAX_JSON).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLong),
        Err(error) => Err(BodyError::Read(error)),
    }
}

/// 204.
pub(crate) fn no_content() -> Answer {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let (status, text) = match serde_json::to_vec(value) {
        Ok(text) => (status, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut answer = bytes(text);
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// 200 with these bytes.
pub(crate) fn bytes(content: impl Into<Bytes>) -> Answer {
    let body = Full::new(content.into()).map_err(|never| match never {});
    Response::new(body.boxed_unsync())
}

/// An error as the HTTP endpoints tell it.
pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
    #[derive(Serialize)]
    struct ErrorBody<'a> {
        code: u16,
        message: &'a str,
    }
    json(
        status,
        &ErrorBody {
            code: status.as_u16(),
            message,
        },
    )
}

/// An error and why, in one text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
