//! The wire: routes, who may call them, and how what cannot be routed is answered.

mod dto;
mod error;
mod extract;
mod list;
mod logs;
mod sandboxes;
mod templates;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use subtle::ConstantTimeEq;

use self::error::ApiError;
use crate::sandboxes::Sandboxes;

/// What every handler is given.
pub(crate) type Shared = State<Arc<Sandboxes>>;

/// The routes.
pub(crate) fn router(sandboxes: Arc<Sandboxes>) -> Router {
    Router::new()
        .route("/sandboxes", post(sandboxes::create_v1).get(list::running))
        .route("/v2/sandboxes", post(sandboxes::create_v2).get(list::all))
        .route(
            "/sandboxes/{id}",
            get(sandboxes::detail).delete(sandboxes::kill),
        )
        .route("/sandboxes/{id}/pause", post(sandboxes::pause))
        .route("/sandboxes/{id}/resume", post(sandboxes::resume))
        .route("/sandboxes/{id}/connect", post(sandboxes::connect_v1))
        .route("/v2/sandboxes/{id}/connect", post(sandboxes::connect_v2))
        .route("/sandboxes/{id}/timeout", post(sandboxes::timeout))
        .route("/sandboxes/{id}/refreshes", post(sandboxes::refresh))
        .route("/sandboxes/{id}/fork", post(sandboxes::fork))
        .route("/sandboxes/{id}/logs", get(logs::console))
        .route("/templates", get(templates::list))
        .route("/templates/{name}/build", post(templates::build))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this route has no such method",
            )
        })
        .layer(middleware::from_fn_with_state(sandboxes.clone(), authorize))
        .route("/health", get(async || "ok"))
        .with_state(sandboxes)
}

async fn authorize(State(sandboxes): Shared, request: Request, next: Next) -> Response {
    let unauthorized =
        |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message).into_response();
    let Some(given) = request.headers().get("x-api-key") else {
        return unauthorized("authorization header is missing");
    };
    let known = sandboxes.config.api_key.expose().as_bytes();
    if !bool::from(given.as_bytes().ct_eq(known)) {
        return unauthorized(
            "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.",
        );
    }
    next.run(request).await
}
