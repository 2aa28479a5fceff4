//! The HTTP API: routes, authorization, and the mapping between wire formats and the service.

mod authorization;
mod cors;
mod dto;
mod error;
mod extract;
mod handler;
mod idempotency_key;
mod list;
mod logs;
mod metrics;
mod quarantine;
mod sandboxes;
mod snapshots;
mod tags;
mod templates;
mod unsupported;

use std::sync::Arc;

use axum::{
    Router,
    http::StatusCode,
    middleware,
    routing::{delete, get, patch, post, put},
};

use self::error::ApiError;
use crate::service::SandboxService;

/// Builds the router. It matches paths before it decodes segments, so an encoded `/` stays within its segment.
pub(crate) fn router(service: Arc<SandboxService>) -> Router {
    Router::new()
        .merge(sandbox_routes())
        .merge(template_routes())
        .merge(unsupported::router())
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this route has no such method",
            )
        })
        .layer(middleware::from_fn_with_state(
            service.clone(),
            authorization::require_key,
        ))
        .route("/health", get(authorization::health))
        .route("/cubeapi/v1/health", get(authorization::health))
        // Outermost, because preflight requests carry no key.
        .layer(cors::allow_all_origins())
        .with_state(service)
}

fn sandbox_routes() -> Router<Arc<SandboxService>> {
    Router::new()
        .route("/sandboxes", post(sandboxes::create_v1).get(list::v1))
        .route("/v2/sandboxes", post(sandboxes::create_v2).get(list::v2))
        .route("/sandboxes/metrics", get(metrics::latest_of_many))
        .route(
            "/sandboxes/{id}",
            get(sandboxes::detail).delete(sandboxes::kill),
        )
        .route("/sandboxes/{id}/pause", post(sandboxes::pause))
        .route("/sandboxes/{id}/resume", post(sandboxes::resume))
        .route("/sandboxes/{id}/connect", post(sandboxes::connect_v1))
        .route("/v2/sandboxes/{id}/connect", post(sandboxes::connect_v2))
        .route("/sandboxes/{id}/timeout", post(sandboxes::set_timeout))
        .route("/sandboxes/{id}/refreshes", post(sandboxes::refresh))
        .route("/sandboxes/{id}/fork", post(sandboxes::fork))
        .route("/sandboxes/{id}/network", put(sandboxes::set_network))
        .route("/sandboxes/{id}/snapshots", post(snapshots::create))
        .route("/sandboxes/{id}/rollback", post(sandboxes::roll_back))
        .route("/sandboxes/{id}/metrics", get(metrics::history))
        .route("/sandboxes/{id}/logs", get(logs::v1))
        .route("/v2/sandboxes/{id}/logs", get(logs::v2))
        .route("/snapshots", get(snapshots::list))
        .route("/catnap/v1/quarantine", get(quarantine::list))
        .route("/catnap/v1/quarantine/{id}", delete(quarantine::discard))
        .route(
            "/catnap/v1/quarantine/{id}/restore",
            post(quarantine::restore),
        )
}

fn template_routes() -> Router<Arc<SandboxService>> {
    let template = || {
        get(templates::detail)
            .delete(templates::delete)
            .patch(templates::publish)
            .post(unsupported::template_builds)
    };
    Router::new()
        .route(
            "/templates",
            get(templates::list).post(unsupported::template_builds),
        )
        .route("/v2/templates", get(templates::list))
        .route("/templates/tags", post(tags::assign).delete(tags::remove))
        .route("/templates/{name}", template())
        // Some clients do not encode the `/` after a namespace.
        .route("/templates/{namespace}/{name}", template())
        .route("/v2/templates/{name}", patch(templates::publish))
        .route("/templates/{name}/build", post(templates::build))
        .route("/templates/{name}/alias", put(templates::set_alias))
        .route("/templates/{name}/tags", get(tags::list))
        .route("/templates/aliases/{alias}", get(templates::resolve_alias))
}
