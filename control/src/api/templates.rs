//! Routes of templates.

use axum::{extract::State, http::StatusCode, response::Response};
use pool_api::TemplateInfo;
use serde_json::{Value, json};

use super::{
    Shared,
    error::{self, ApiError},
    extract::Template,
};
use crate::time::Micros;

pub(super) async fn list(State(sandboxes): Shared) -> Response {
    let templates: Vec<Value> = sandboxes
        .node
        .templates()
        .await
        .iter()
        .map(described)
        .collect();
    error::json(StatusCode::OK, &templates)
}

pub(super) async fn build(
    State(sandboxes): Shared,
    Template(name): Template,
) -> Result<Response, ApiError> {
    let built = sandboxes.build_template(&name).await?;
    Ok(error::json(StatusCode::OK, &described(&built)))
}

fn described(template: &TemplateInfo) -> Value {
    let built_at = template.built_at.map(Micros::from);
    json!({
        "templateID": template.name,
        "buildID": template.snapshot,
        "buildStatus": if template.snapshot.is_some() { "ready" } else { "building" },
        "aliases": [template.name],
        "names": [template.name],
        "public": true,
        "cpuCount": template.resources.vcpus,
        "memoryMB": template.resources.memory >> 20,
        "diskSizeMB": template.resources.disk >> 20,
        "createdAt": built_at,
        "updatedAt": built_at,
    })
}
