//! The wire: routes, who may call them, and how what cannot be routed is answered.

mod cors;
mod dto;
mod error;
mod extract;
mod idempotent;
mod later;
mod list;
mod logs;
mod metrics;
mod sandboxes;
mod snapshots;
mod tags;
mod templates;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post, put},
};
use serde_json::json;
use subtle::ConstantTimeEq;

use self::error::ApiError;
use crate::sandboxes::{Failure, Sandboxes};

/// What every handler is given.
pub(crate) type Shared = State<Arc<Sandboxes>>;

/// The routes. They are matched before their segments are decoded, so that a name with a `/` in it is one segment.
pub(crate) fn router(sandboxes: Arc<Sandboxes>) -> Router {
    Router::new()
        .merge(of_sandboxes())
        .merge(of_templates())
        .merge(later::router())
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this route has no such method",
            )
        })
        .layer(middleware::from_fn_with_state(sandboxes.clone(), authorize))
        .route("/health", get(health))
        .route("/cubeapi/v1/health", get(health))
        // Outermost: a browser asks whether it may call before it sends a key.
        .layer(cors::of_all_origins())
        .with_state(sandboxes)
}

fn of_sandboxes() -> Router<Arc<Sandboxes>> {
    Router::new()
        .route("/sandboxes", post(sandboxes::create_v1).get(list::running))
        .route("/v2/sandboxes", post(sandboxes::create_v2).get(list::all))
        .route("/sandboxes/metrics", get(metrics::many))
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
        .route("/sandboxes/{id}/network", put(sandboxes::network))
        .route("/sandboxes/{id}/snapshots", post(snapshots::take))
        .route("/sandboxes/{id}/rollback", post(sandboxes::rollback))
        .route("/sandboxes/{id}/metrics", get(metrics::one))
        .route("/sandboxes/{id}/logs", get(logs::v1))
        .route("/v2/sandboxes/{id}/logs", get(logs::v2))
        .route("/snapshots", get(snapshots::list))
}

fn of_templates() -> Router<Arc<Sandboxes>> {
    let one = || {
        get(templates::detail)
            .delete(templates::delete)
            .patch(templates::publish)
            .post(async || ApiError::from(Failure::Later("template builds are")))
    };
    Router::new()
        .route(
            "/templates",
            get(templates::list)
                .post(async || ApiError::from(Failure::Later("template builds are"))),
        )
        .route("/v2/templates", get(templates::list))
        .route("/templates/tags", post(tags::assign).delete(tags::take))
        .route("/templates/{name}", one())
        // Some clients write a namespace as it is.
        .route("/templates/{name}/{in_namespace}", one())
        .route("/v2/templates/{name}", patch(templates::publish))
        .route("/templates/{name}/build", post(templates::build))
        .route("/templates/{name}/alias", put(templates::alias))
        .route("/templates/{name}/tags", get(tags::list))
        .route("/templates/aliases/{alias}", get(templates::exists))
}

/// Text for those who look at the status alone, JSON for those who read it.
async fn health(State(sandboxes): Shared, request: Request) -> Response {
    let mut body = json!({ "status": "ok" });
    if knows_key(&sandboxes, request.headers()) == Some(true) {
        body["sandboxes"] = sandboxes.node.list().await.len().into();
    }
    error::json(StatusCode::OK, &body)
}

/// Whether a request carries the key; `None` when it carries none at all.
fn knows_key(sandboxes: &Sandboxes, headers: &HeaderMap) -> Option<bool> {
    let key = headers.get("x-api-key").map(HeaderValue::as_bytes);
    let bearer = || {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    };
    let given = key.or_else(bearer)?;
    let known = sandboxes.config.api_key.expose().as_bytes();
    Some(given.ct_eq(known).into())
}

async fn authorize(State(sandboxes): Shared, request: Request, next: Next) -> Response {
    let message = match knows_key(&sandboxes, request.headers()) {
        Some(true) => return next.run(request).await,
        Some(false) => {
            "Invalid API key, please visit https://e2b.dev/docs/api-key for more information."
        }
        None => "authorization header is missing",
    };
    ApiError::new(StatusCode::UNAUTHORIZED, message).into_response()
}

/// Carries something out to its end, even when the caller goes away meanwhile: half of it done is worse than all.
async fn carried_out<T: Send + 'static>(
    what: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(what).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Failure::internal(error).into()),
    }
}
