//! CORS headers of the gateway's own responses. Without them a browser hides even the status code from a page.
//!
//! Responses of guests, preflights included, pass unchanged.

use http::{Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};

const ANY: &str = "*";
/// The time for which a browser may cache a preflight, in seconds. Short, because a sandbox that starts later
/// answers preflights itself.
const MAX_AGE: u32 = 60;
/// The longest `Access-Control-Request-Headers` that is echoed, in bytes.
const MAX_HEADER_NAMES: usize = 4096;

/// Answers a preflight to a sandbox that cannot answer it; `None` if the request is not one.
pub(super) fn preflight(request: &RequestHeader) -> pingora::Result<Option<ResponseHeader>> {
    let headers = &request.headers;
    if request.method != Method::OPTIONS
        || !headers.contains_key(header::ORIGIN)
        || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return Ok(None);
    }
    let mut response = ResponseHeader::build(StatusCode::NO_CONTENT, Some(4))?;
    allow(&mut response)?;
    response.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, ANY)?;
    response.insert_header(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE)?;
    let names = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(names) = names.filter(|names| names.len() <= MAX_HEADER_NAMES) {
        response.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, names)?;
    }
    Ok(Some(response))
}

/// Allows pages of every origin to read the response.
pub(super) fn allow(response: &mut ResponseHeader) -> pingora::Result<()> {
    response.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY)
}
