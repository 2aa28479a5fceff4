//! Routes of E2B that this server does not implement. They answer 501, which clients do not retry.

use std::sync::Arc;

use axum::{
    Router,
    routing::{any, get, post},
};

use super::error::ApiError;
use crate::{
    error::{Feature, ServiceError},
    service::SandboxService,
};

pub(super) async fn template_builds() -> ApiError {
    ServiceError::Unsupported(Feature::TemplateBuilds).into()
}

async fn volumes() -> ApiError {
    ServiceError::Unsupported(Feature::Volumes).into()
}

async fn secrets() -> ApiError {
    ServiceError::Unsupported(Feature::Secrets).into()
}

async fn teams() -> ApiError {
    ServiceError::Unsupported(Feature::Teams).into()
}

/// Builds the router.
pub(super) fn router() -> Router<Arc<SandboxService>> {
    let builds = template_builds;
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
