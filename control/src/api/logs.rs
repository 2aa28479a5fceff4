//! The guest's console, line by line.

mod line;

use axum::{extract::State, http::StatusCode, response::Response};
use pool_api::SandboxId;
use serde_json::{Value, json};

use self::line::Line;
use super::{
    Shared,
    error::{self, ApiError},
    extract::{Id, Pairs},
};
use crate::sandboxes::Sandboxes;

/// Bytes of console that are looked at.
const WINDOW: usize = 1 << 20;
/// Lines that are answered when nobody says how many.
const DEFAULT_LINES: usize = 1000;
/// Lines that are answered at most.
const MOST_LINES: usize = 10_000;
/// Characters that are searched for at most.
const LONGEST_SEARCH: usize = 256;
/// What is said of every line: a console knows no levels.
const LEVEL: Level = Level::Info;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

fn entry(line: &Line) -> Value {
    json!({ "timestamp": line.at, "level": "info", "message": line.text, "fields": {} })
}

async fn lines(sandboxes: &Sandboxes, id: &SandboxId) -> Result<Vec<Line>, ApiError> {
    let started_at = sandboxes.get(id).await?.entry.started_at;
    let bytes = sandboxes.console(id, WINDOW).await?;
    Ok(line::read(&bytes, bytes.len() >= WINDOW, started_at))
}

fn limit(pairs: &Pairs) -> Result<usize, ApiError> {
    let limit = pairs.get("limit").map_or(Ok(DEFAULT_LINES), str::parse);
    limit
        .map(|limit| limit.min(MOST_LINES))
        .map_err(|_| ApiError::bad("limit must be a number"))
}

/// A number of milliseconds, if one is given.
fn millis(pairs: &Pairs, name: &str) -> Result<Option<i64>, ApiError> {
    let number = pairs.get(name).map(str::parse).transpose();
    number.map_err(|_| ApiError::bad(format!("{name} must be a number of milliseconds")))
}

/// The first generation: from `start` on, or the last lines.
pub(super) async fn v1(
    State(sandboxes): Shared,
    Id(id): Id,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let (limit, start) = (limit(&pairs)?, millis(&pairs, "start")?);
    let mut lines = lines(&sandboxes, &id).await?;
    if let Some(start) = start {
        lines.retain(|line| line.at.millis() >= start);
        lines.truncate(limit);
    } else {
        lines.drain(..lines.len().saturating_sub(limit));
    }
    let logs: Vec<Value> = lines
        .iter()
        .map(|line| json!({ "timestamp": line.at, "line": line.text }))
        .collect();
    let entries: Vec<Value> = lines.iter().map(entry).collect();
    Ok(error::json(
        StatusCode::OK,
        &json!({ "logs": logs, "logEntries": entries }),
    ))
}

/// The second: from the cursor in either direction, filtered.
pub(super) async fn v2(
    State(sandboxes): Shared,
    Id(id): Id,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let (limit, cursor) = (limit(&pairs)?, millis(&pairs, "cursor")?);
    let forward = match pairs.get("direction") {
        None | Some("forward") => true,
        Some("backward") => false,
        Some(_) => return Err(ApiError::bad("direction must be forward or backward")),
    };
    let level = match pairs.get("level") {
        None | Some("debug") => Level::Debug,
        Some("info") => Level::Info,
        Some("warn") => Level::Warn,
        Some("error") => Level::Error,
        Some(_) => return Err(ApiError::bad("level must be debug, info, warn or error")),
    };
    let search = pairs.get("search").unwrap_or_default();
    if search.chars().count() > LONGEST_SEARCH {
        return Err(ApiError::bad(format!(
            "search must have {LONGEST_SEARCH} characters at most"
        )));
    }
    let mut lines = lines(&sandboxes, &id).await?;
    lines.retain(|line| {
        let at = line.at.millis();
        let inside = cursor.is_none_or(|cursor| if forward { at >= cursor } else { at <= cursor });
        inside && LEVEL >= level && line.text.contains(search)
    });
    if !forward {
        lines.reverse();
    }
    lines.truncate(limit);
    let entries: Vec<Value> = lines.iter().map(entry).collect();
    Ok(error::json(StatusCode::OK, &json!({ "logs": entries })))
}
