//! Letting pages of other origins call the agent: the token says who may, not the page.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use crate::respond::{self, Answer};

const METHODS: &str = "HEAD, GET, POST, PUT, PATCH, DELETE";
/// What a page may read of an answer, beside what every page may.
const EXPOSED: &str = "Location, Cache-Control, X-Content-Type-Options, Connect-Content-Encoding, \
    Connect-Accept-Encoding, Content-Encoding, Content-Disposition, Content-Range, Accept-Ranges";
/// How long a browser may keep the answer to a preflight, in seconds.
const KEPT: &str = "7200";
/// Most bytes of names that are allowed by repeating them.
const LONGEST: usize = 4096;

/// Whether the request says that it comes from a page.
pub(crate) fn crosses<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(header::ORIGIN)
}

/// The answer to a browser that asks whether it may call; `None` if it does not.
pub(crate) fn preflight<B>(request: &Request<B>) -> Option<Answer> {
    let asks = request.headers();
    if request.method() != Method::OPTIONS
        || !crosses(request)
        || !asks.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    let mut answer = respond::no_content();
    let headers = answer.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    set(header::ACCESS_CONTROL_MAX_AGE, KEPT);
    set(
        header::VARY,
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    );
    if let Some(names) = asks
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .filter(|names| names.len() <= LONGEST)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    Some(answer)
}

/// Lets the page read the answer.
pub(crate) fn allow(headers: &mut HeaderMap) {
    let origin = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let exposed = HeaderValue::from_static(EXPOSED);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}
