//! What clients know and this server does not do yet: said clearly, so that nobody retries or waits.

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};

use super::error::ApiError;
use crate::sandboxes::{Failure, Sandboxes};

fn later(what: &'static str) -> Response {
    ApiError::from(Failure::Later(what)).into_response()
}

async fn builds() -> Response {
    later("template builds are")
}

async fn volumes() -> Response {
    later("volumes are")
}

async fn secrets() -> Response {
    later("secrets are")
}

async fn teams() -> Response {
    later("teams are")
}

/// The routes.
pub(super) fn router() -> Router<Arc<Sandboxes>> {
    Router::new()
        .route("/v3/templates", post(builds))
        .route("/v2/templates/{template}/builds/{build}", post(builds))
        .route("/templates/{template}/files/{hash}", get(builds))
        .route("/templates/{template}/builds/{build}", any(builds))
        .route("/templates/{template}/builds/{build}/status", get(builds))
        .route("/templates/{template}/builds/{build}/logs", get(builds))
        .route("/volumes", any(volumes))
        .route("/volumes/{*rest}", any(volumes))
        .route("/volumecontent/{*rest}", any(volumes))
        .route("/secrets", any(secrets))
        .route("/secrets/{*rest}", any(secrets))
        .route("/teams", any(teams))
        .route("/teams/{*rest}", any(teams))
}
