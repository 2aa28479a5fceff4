//! Handlers of the quarantine, an extension of Catnap.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    error,
    handler::{HandlerResult, Service},
};
use crate::{ledger::Quarantined, service::QUARANTINE_RETENTION};

/// `GET /catnap/v1/quarantine`
pub(super) async fn list(State(service): Service) -> HandlerResult {
    let entries = service.quarantined().await?;
    let entry = |entry: &Quarantined| {
        json!({
            "kind": entry.object.kind(),
            "id": entry.object.id(),
            "since": entry.since,
            "removedAt": entry.since.after(QUARANTINE_RETENTION),
        })
    };
    let listed: Vec<_> = entries.iter().map(entry).collect();
    Ok(error::json(StatusCode::OK, &listed))
}

/// `POST /catnap/v1/quarantine/{id}/restore`
pub(super) async fn restore(State(service): Service, Path(id): Path<String>) -> HandlerResult {
    let found = service.take_back(&id).await?;
    Ok(error::json(StatusCode::OK, &json!({ "id": found })))
}

/// `DELETE /catnap/v1/quarantine/{id}`
pub(super) async fn discard(State(service): Service, Path(id): Path<String>) -> HandlerResult {
    service.discard(&id).await?;
    Ok(no_content())
}

fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
