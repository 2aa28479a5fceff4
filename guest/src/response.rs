//! HTTP responses of the agent.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use serde::Serialize;

/// A response with any body.
pub(crate) type HttpResponse = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Builds a 204 response.
pub(crate) fn no_content() -> HttpResponse {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Builds a response with `value` as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> HttpResponse {
    let (status, text) = match serde_json::to_vec(value) {
        Ok(text) => (status, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut response = bytes(text);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json; charset=utf-8");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// Builds a 200 response with `content` as its body.
pub(crate) fn bytes(content: impl Into<Bytes>) -> HttpResponse {
    let body = Full::new(content.into()).map_err(|never| match never {});
    Response::new(body.boxed_unsync())
}

/// Builds an error response of the HTTP endpoints: `code` and `message` as JSON.
pub(crate) fn error(status: StatusCode, message: &str) -> HttpResponse {
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
