//! Handlers for tags of templates.

use axum::{extract::State, http::StatusCode, response::IntoResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::{self, ApiError},
    extract::{Json, TemplateRef},
    handler::{HandlerResult, Service, run_to_completion},
};
use crate::{
    error::ServiceError,
    reference::{Reference, Tag},
};

/// Tags in one request.
const MAX_TAGS: usize = 100;

/// The body of a request that assigns tags.
#[derive(Debug, Deserialize)]
pub(super) struct AssignBody {
    target: String,
    tags: Vec<String>,
}

/// The body of a request that removes tags.
#[derive(Debug, Deserialize)]
pub(super) struct RemoveBody {
    name: String,
    tags: Vec<String>,
}

fn parse_reference(text: &str) -> Result<Reference, ServiceError> {
    Ok(text.parse()?)
}

fn parse_tags(tags: &[String]) -> Result<Vec<Tag>, ApiError> {
    if tags.is_empty() || tags.len() > MAX_TAGS {
        return Err(ApiError::bad_request(format!(
            "tags must name 1 to {MAX_TAGS} tags"
        )));
    }
    let tags: Result<Vec<Tag>, _> = tags.iter().map(|tag| tag.parse()).collect();
    let mut tags = tags.map_err(|error| ApiError::bad_request(format!("Invalid tag: {error}")))?;
    tags.sort();
    tags.dedup();
    Ok(tags)
}

/// `POST /templates/tags`
pub(super) async fn assign(
    State(service): Service,
    Json(assign): Json<AssignBody>,
) -> HandlerResult {
    let (target, tags) = (parse_reference(&assign.target)?, parse_tags(&assign.tags)?);
    let names: Vec<String> = tags.iter().map(ToString::to_string).collect();
    let build = run_to_completion(async move { service.assign_tags(&target, &tags).await }).await?;
    let body = json!({ "buildID": build, "tags": names });
    Ok(error::json(StatusCode::CREATED, &body))
}

/// `DELETE /templates/tags`
pub(super) async fn remove(
    State(service): Service,
    Json(remove): Json<RemoveBody>,
) -> HandlerResult {
    let (target, tags) = (parse_reference(&remove.name)?, parse_tags(&remove.tags)?);
    run_to_completion(async move { service.remove_tags(&target, &tags).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /templates/{name}/tags`
pub(super) async fn list(
    State(service): Service,
    TemplateRef(reference): TemplateRef,
) -> HandlerResult {
    let template = service.resolve(&reference).await?;
    let tags = service.tags(&template).await?;
    let listed: Vec<Value> = tags
        .iter()
        .map(|tag| json!({ "tag": tag.tag.as_str(), "buildID": tag.build, "createdAt": tag.created_at }))
        .collect();
    Ok(error::json(StatusCode::OK, &listed))
}
