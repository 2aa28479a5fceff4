//! Handlers that take and list snapshots. Snapshots are deleted as templates.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode},
};
use serde_json::{Value, json};

use super::{
    dto,
    error::{self, ApiError},
    extract::{self, OptionalJson, PathId, QueryParams},
    handler::{HandlerResult, Service, run_to_completion},
    list::{self, NEXT_TOKEN, Order, PageToken},
};
use crate::{
    error::ServiceError,
    ledger::{NamedSnapshot, SnapshotQuery},
    reference::{NAMESPACE, Reference},
    service::ResolvedTemplate,
};

fn to_json(snapshot: &NamedSnapshot) -> Value {
    let NamedSnapshot {
        template,
        name,
        tag,
        ..
    } = snapshot;
    match name {
        Some(name) => {
            let tagged = format!("{NAMESPACE}/{name}:{tag}");
            // Names omit the default tag.
            let listed = if tag.is_default() {
                format!("{NAMESPACE}/{name}")
            } else {
                tagged.clone()
            };
            json!({ "snapshotID": tagged, "names": [listed] })
        }
        None => json!({ "snapshotID": format!("{template}:{tag}"), "names": [] }),
    }
}

/// `POST /sandboxes/{id}/snapshots`
pub(super) async fn create(
    State(service): Service,
    PathId(id): PathId,
    OptionalJson(body): OptionalJson<dto::SnapshotBody>,
) -> HandlerResult {
    let scope = dto::scope(body.memory);
    let name = body.name.filter(|name| !name.trim().is_empty());
    let name: Option<Reference> = name
        .map(|name| name.parse())
        .transpose()
        .map_err(|error| ApiError::bad_request(format!("Invalid snapshot name: {error}")))?;
    let snapshot =
        run_to_completion(async move { service.snapshot(&id, name.as_ref(), scope).await });
    Ok(error::json(StatusCode::CREATED, &to_json(&snapshot.await?)))
}

/// `GET /snapshots`
pub(super) async fn list(State(service): Service, params: QueryParams) -> HandlerResult {
    let limit = list::limit(&params)?;
    let mut query = SnapshotQuery {
        limit: limit + 1,
        ..SnapshotQuery::default()
    };
    if let Some(text) = params.get("sandboxID") {
        query.sandbox = Some(extract::sandbox_id(text)?);
    }
    if let Some(text) = params.get("nextToken") {
        let token = PageToken::decode(text).filter(|token| token.order() == Order::Descending);
        let token = token.ok_or_else(|| ApiError::bad_request("Invalid next token"))?;
        query.after = Some(token.into_key());
    }
    if let Some(text) = params.get("name") {
        let reference: Reference = text.parse().map_err(ServiceError::from)?;
        query.tag.clone_from(&reference.tag);
        match service.resolve(&reference).await {
            Ok(ResolvedTemplate::Snapshots(template)) => query.template = Some(template.id),
            Ok(ResolvedTemplate::Host(_)) | Err(ServiceError::TemplateNotFound { .. }) => {
                return Ok(error::json(StatusCode::OK, &json!([])));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut snapshots = service.list_snapshots(&query).await?;
    let has_more = snapshots.len() > limit;
    snapshots.truncate(limit);
    let listed: Vec<Value> = snapshots.iter().map(to_json).collect();
    let mut response = error::json(StatusCode::OK, &listed);
    if has_more && let Some(last) = snapshots.last() {
        let build = last.build.to_string();
        let token = Order::Descending.token((last.created_at, &build));
        if let Ok(token) = HeaderValue::try_from(token.encode()) {
            response.headers_mut().insert(NEXT_TOKEN, token);
        }
    }
    Ok(response)
}
