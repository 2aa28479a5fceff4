//! Handlers that return the guest's console as logs.

mod line;

use axum::{extract::State, http::StatusCode};
use pool_api::SandboxId;
use serde_json::{Value, json};

use self::line::{Line, Start};
use super::{
    error::{self, ApiError},
    extract::{PathId, QueryParams},
    handler::{HandlerResult, Service},
};
use crate::service::SandboxService;

/// Bytes of the console that are searched, from its end.
const MAX_CONSOLE: usize = 1 << 20;
/// Lines that are returned without a limit.
const DEFAULT_LINES: usize = 1000;
/// The highest limit.
const MAX_LINES: usize = 10_000;
/// The longest search text, in characters.
const MAX_SEARCH_LEN: usize = 256;
/// The level of every line, because a console has no levels.
const CONSOLE_LEVEL: Level = Level::Info;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

fn to_json(line: &Line) -> Value {
    json!({ "timestamp": line.at, "level": CONSOLE_LEVEL.name(), "message": line.text, "fields": {} })
}

async fn console_lines(service: &SandboxService, id: &SandboxId) -> Result<Vec<Line>, ApiError> {
    let started_at = service.get(id).await?.record.started_at;
    let bytes = service.console(id, MAX_CONSOLE).await?;
    let start = if bytes.len() < MAX_CONSOLE {
        Start::Complete
    } else {
        Start::Truncated
    };
    Ok(line::parse(&bytes, start, started_at))
}

fn limit(params: &QueryParams) -> Result<usize, ApiError> {
    let limit = params.get("limit").map_or(Ok(DEFAULT_LINES), str::parse);
    limit
        .map(|limit| limit.min(MAX_LINES))
        .map_err(|_| ApiError::bad_request("limit must be a number"))
}

/// Parses a parameter in milliseconds.
fn millis(params: &QueryParams, name: &str) -> Result<Option<i64>, ApiError> {
    let number = params.get(name).map(str::parse).transpose();
    number.map_err(|_| ApiError::bad_request(format!("{name} must be a number of milliseconds")))
}

/// `GET /sandboxes/{id}/logs`: the first lines from `start`, or the last lines.
pub(super) async fn v1(
    State(service): Service,
    PathId(id): PathId,
    params: QueryParams,
) -> HandlerResult {
    let (limit, start) = (limit(&params)?, millis(&params, "start")?);
    let mut lines = console_lines(&service, &id).await?;
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
    let entries: Vec<Value> = lines.iter().map(to_json).collect();
    Ok(error::json(
        StatusCode::OK,
        &json!({ "logs": logs, "logEntries": entries }),
    ))
}

/// `GET /v2/sandboxes/{id}/logs`: from the cursor in either direction, filtered.
pub(super) async fn v2(
    State(service): Service,
    PathId(id): PathId,
    params: QueryParams,
) -> HandlerResult {
    let (limit, cursor) = (limit(&params)?, millis(&params, "cursor")?);
    let direction = match params.get("direction") {
        None | Some("forward") => Direction::Forward,
        Some("backward") => Direction::Backward,
        Some(_) => {
            return Err(ApiError::bad_request(
                "direction must be forward or backward",
            ));
        }
    };
    let level = match params.get("level") {
        None | Some("debug") => Level::Debug,
        Some("info") => Level::Info,
        Some("warn") => Level::Warn,
        Some("error") => Level::Error,
        Some(_) => {
            return Err(ApiError::bad_request(
                "level must be debug, info, warn or error",
            ));
        }
    };
    let search = params.get("search").unwrap_or_default();
    if search.chars().count() > MAX_SEARCH_LEN {
        return Err(ApiError::bad_request(format!(
            "search must have {MAX_SEARCH_LEN} characters at most"
        )));
    }
    let mut lines = console_lines(&service, &id).await?;
    lines.retain(|line| {
        let at = line.at.millis();
        let in_range = cursor.is_none_or(|cursor| match direction {
            Direction::Forward => at >= cursor,
            Direction::Backward => at <= cursor,
        });
        in_range && CONSOLE_LEVEL >= level && line.text.contains(search)
    });
    if direction == Direction::Backward {
        lines.reverse();
    }
    lines.truncate(limit);
    let entries: Vec<Value> = lines.iter().map(to_json).collect();
    Ok(error::json(StatusCode::OK, &json!({ "logs": entries })))
}
