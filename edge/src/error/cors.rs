//! Letting pages of other origins read the edge's own answers: else a browser hides even their codes.
//!
//! Only answers of the edge are touched. What a guest answers, also to a browser that asks ahead, is the guest's.

use http::{Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};

const ANY: &str = "*";
/// How long a browser may keep what it was told, in seconds. Short: a sandbox that is there later says it itself.
const KEPT: u32 = 60;
/// Most bytes of names that are allowed by repeating them.
const LONGEST: usize = 4096;

/// The answer to a browser that asks ahead about a sandbox that cannot answer; `None` if it does not ask.
pub(super) fn preflight(request: &RequestHeader) -> pingora::Result<Option<ResponseHeader>> {
    let asks = &request.headers;
    if request.method != Method::OPTIONS
        || !asks.contains_key(header::ORIGIN)
        || !asks.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return Ok(None);
    }
    let mut answer = ResponseHeader::build(StatusCode::NO_CONTENT, Some(4))?;
    allow(&mut answer)?;
    answer.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, ANY)?;
    answer.insert_header(header::ACCESS_CONTROL_MAX_AGE, KEPT)?;
    let names = asks.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(names) = names.filter(|names| names.len() <= LONGEST) {
        answer.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, names)?;
    }
    Ok(Some(answer))
}

/// Lets any page read the answer.
pub(super) fn allow(answer: &mut ResponseHeader) -> pingora::Result<()> {
    answer.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY)
}
