//! CORS: pages of any origin may call the API, because the key authorizes a request, not the page.

use std::time::Duration;

use axum::http::{HeaderName, Method, header};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// Response headers that pages may read in addition to the safelisted ones.
const EXPOSED: [HeaderName; 4] = [
    HeaderName::from_static("x-next-token"),
    HeaderName::from_static("x-total-running"),
    HeaderName::from_static("should-retry"),
    header::RETRY_AFTER,
];

/// Answers preflight requests and lets pages read responses. Allows every request header, because clients send their name
/// and version in custom ones. Does not allow credentials of the browser.
pub(super) fn allow_all_origins() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(METHODS)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(Duration::from_secs(7200))
}
