//! Letting pages of any origin call the API: the key says who may, not the page.

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

/// What a page may read of an answer, beside what every page may: paging, and when to try again.
const EXPOSED: [HeaderName; 4] = [
    HeaderName::from_static("x-next-token"),
    HeaderName::from_static("x-total-running"),
    HeaderName::from_static("should-retry"),
    header::RETRY_AFTER,
];

/// Answers what browsers ask ahead, and lets pages read the answers. Every field is let through, as clients send their
/// kind and version in fields of their own. Nothing is allowed that a page could do with a browser's own credentials.
pub(super) fn of_all_origins() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(METHODS)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(Duration::from_secs(7200))
}
