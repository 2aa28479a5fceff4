//! The guest's console.

use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::json;

use super::{
    Shared,
    error::{self, ApiError},
    extract::{Id, Pairs},
};
use crate::time::Micros;

/// Bytes of console that are looked at.
const WINDOW: usize = 1 << 20;
/// Lines that are answered when none are asked for.
const DEFAULT_LINES: usize = 1000;

pub(super) async fn console(
    State(sandboxes): Shared,
    Id(id): Id,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let limit = pairs.get("limit").map_or(Ok(DEFAULT_LINES), str::parse);
    let limit = limit.map_err(|_| ApiError::bad("limit must be a number"))?;
    let bytes = sandboxes.console(&id, WINDOW).await?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    let from = lines.len().saturating_sub(limit);
    // The console has no times of its own; these are of the reading.
    let now = Micros::now();
    let lines = lines.get(from..).unwrap_or_default();
    let logs: Vec<_> = lines
        .iter()
        .map(|line| json!({ "timestamp": now, "line": line }))
        .collect();
    let entries: Vec<_> = lines
        .iter()
        .map(|line| json!({ "timestamp": now, "level": "info", "message": line, "fields": {} }))
        .collect();
    Ok(error::json(
        StatusCode::OK,
        &json!({ "logs": logs, "logEntries": entries }),
    ))
}
