//! Routes of tags.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared, carried_out,
    error::{self, ApiError},
    extract::{Body, Referred},
};
use crate::{
    reference::{Reference, Tag},
    sandboxes::Failure,
};

type Answer = Result<Response, ApiError>;

/// Tags in one request at most.
const MOST: usize = 100;

/// Tags to be given.
#[derive(Debug, Deserialize)]
pub(super) struct Assign {
    target: String,
    tags: Vec<String>,
}

/// Tags to be taken.
#[derive(Debug, Deserialize)]
pub(super) struct Take {
    name: String,
    tags: Vec<String>,
}

fn reference(text: &str) -> Result<Reference, ApiError> {
    let reference: Result<Reference, _> = text.parse();
    reference.map_err(|error| Failure::from(error).into())
}

fn checked(tags: &[String]) -> Result<Vec<Tag>, ApiError> {
    if tags.is_empty() || tags.len() > MOST {
        return Err(ApiError::bad(format!("tags must name 1 to {MOST} tags")));
    }
    let tags: Result<Vec<Tag>, _> = tags.iter().map(|tag| tag.parse()).collect();
    let mut tags = tags.map_err(|error| ApiError::bad(format!("Invalid tag: {error}")))?;
    tags.sort();
    tags.dedup();
    Ok(tags)
}

pub(super) async fn assign(State(sandboxes): Shared, Body(assign): Body<Assign>) -> Answer {
    let (target, tags) = (reference(&assign.target)?, checked(&assign.tags)?);
    let given: Vec<String> = tags.iter().map(ToString::to_string).collect();
    let build = carried_out(async move { sandboxes.tag(&target, &tags).await }).await?;
    let body = json!({ "buildID": build, "tags": given });
    Ok(error::json(StatusCode::CREATED, &body))
}

pub(super) async fn take(State(sandboxes): Shared, Body(take): Body<Take>) -> Answer {
    let (target, tags) = (reference(&take.name)?, checked(&take.tags)?);
    carried_out(async move { sandboxes.untag(&target, &tags).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn list(State(sandboxes): Shared, Referred(reference): Referred) -> Answer {
    let found = sandboxes.find(&reference).await?;
    let tags = sandboxes.tags(&found).await?;
    let shown: Vec<Value> = tags
        .iter()
        .map(|seen| json!({ "tag": seen.tag, "buildID": seen.build, "createdAt": seen.created_at }))
        .collect();
    Ok(error::json(StatusCode::OK, &shown))
}
