//! Cross-origin resource sharing. Pages of any origin may call the agent: the token authorizes, not the origin.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use crate::response::{self, HttpResponse};

const ALLOWED_METHODS: &str = "HEAD, GET, POST, PUT, PATCH, DELETE";
/// Response headers that pages may read, beside those that are always readable.
const EXPOSED_HEADERS: &str = "Location, Cache-Control, X-Content-Type-Options, Connect-Content-Encoding, \
    Connect-Accept-Encoding, Content-Encoding, Content-Disposition, Content-Range, Accept-Ranges";
/// The time for which browsers may cache a preflight response, in seconds.
const MAX_AGE: &str = "7200";
/// The longest list of requested header names that is allowed.
const MAX_REQUESTED_HEADERS: usize = 4096;

/// Returns whether the request comes from a page.
pub(crate) fn is_cross_origin<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(header::ORIGIN)
}

/// Builds the response to a preflight request; `None` for any other request.
pub(crate) fn preflight<B>(request: &Request<B>) -> Option<HttpResponse> {
    let requested = request.headers();
    if request.method() != Method::OPTIONS
        || !is_cross_origin(request)
        || !requested.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    let mut response = response::no_content();
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    set(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    set(
        header::VARY,
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    );
    if let Some(names) = requested
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .filter(|names| names.len() <= MAX_REQUESTED_HEADERS)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    Some(response)
}

/// Adds the headers that let a page read the response.
pub(crate) fn allow(headers: &mut HeaderMap) {
    let origin = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let exposed = HeaderValue::from_static(EXPOSED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}
