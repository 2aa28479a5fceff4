//! Handlers for guest metrics.

use axum::{extract::State, http::StatusCode};
use pool_api::GuestMetrics;
use serde_json::{Map, Value, json};

use super::{
    error::{self, ApiError},
    extract::{self, PathId, QueryParams},
    handler::{HandlerResult, Service},
};
use crate::time::Micros;

/// Sandboxes in one request.
const MAX_SANDBOXES: usize = 100;

/// An instant within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Start,
    End,
}

fn to_json(sample: &GuestMetrics) -> Value {
    let at = Micros::from(sample.at);
    json!({
        "timestamp": at,
        "timestampUnix": at.seconds(),
        "cpuCount": sample.cpus,
        "cpuUsedPct": if sample.cpu_used_pct.is_finite() { sample.cpu_used_pct } else { 0.0 },
        "memUsed": sample.memory_used,
        "memTotal": sample.memory_total,
        "memCache": sample.memory_cache,
        "diskUsed": sample.disk_used,
        "diskTotal": sample.disk_total,
    })
}

/// Parses a parameter in seconds.
fn second(params: &QueryParams, name: &str, within: Within) -> Result<Option<Micros>, ApiError> {
    let Some(text) = params.get(name) else {
        return Ok(None);
    };
    let second: i64 = text
        .parse()
        .map_err(|_| ApiError::bad_request(format!("{name} must be a number of seconds")))?;
    let start = second.saturating_mul(1_000_000);
    Ok(Some(Micros(match within {
        Within::Start => start,
        Within::End => start.saturating_add(999_999),
    })))
}

/// `GET /sandboxes/{id}/metrics`
pub(super) async fn history(
    State(service): Service,
    PathId(id): PathId,
    params: QueryParams,
) -> HandlerResult {
    let from = second(&params, "start", Within::Start)?.unwrap_or(Micros(0));
    let to = second(&params, "end", Within::End)?.unwrap_or(Micros(i64::MAX));
    service.get(&id).await?;
    let samples = service.metrics().range(&id, from, to).await;
    let body: Vec<Value> = samples.iter().map(to_json).collect();
    Ok(error::json(StatusCode::OK, &body))
}

/// `GET /sandboxes/metrics`
pub(super) async fn latest_of_many(State(service): Service, params: QueryParams) -> HandlerResult {
    let values = params.0.iter().filter(|(name, _)| name == "sandbox_ids");
    let ids: Vec<&str> = values
        .flat_map(|(_, ids)| ids.split(','))
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .collect();
    if ids.is_empty() {
        return Err(ApiError::bad_request("sandbox_ids must name sandboxes"));
    }
    if ids.len() > MAX_SANDBOXES {
        return Err(ApiError::bad_request(format!(
            "sandbox_ids must name {MAX_SANDBOXES} sandboxes at most"
        )));
    }
    let mut latest = Map::new();
    for id in ids {
        let id = extract::sandbox_id(id)?;
        if let Some(sample) = service.metrics().latest(&id) {
            latest.insert(id.to_string(), to_json(&sample));
        }
    }
    Ok(error::json(StatusCode::OK, &json!({ "sandboxes": latest })))
}
