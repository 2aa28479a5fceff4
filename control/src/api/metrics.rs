//! What guests say of themselves.

use axum::{extract::State, http::StatusCode, response::Response};
use pool_api::{GuestMetrics, SandboxId};
use serde_json::{Map, Value, json};

use super::{
    Shared,
    error::{self, ApiError},
    extract::{Id, Pairs},
};
use crate::time::Micros;

/// Sandboxes in one question.
const MOST: usize = 100;

fn shown(sample: &GuestMetrics) -> Value {
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

/// A second, if one is given. `end`: the last moment of it.
fn second(pairs: &Pairs, name: &str, end: bool) -> Result<Option<Micros>, ApiError> {
    let Some(text) = pairs.get(name) else {
        return Ok(None);
    };
    let second: i64 = text
        .parse()
        .map_err(|_| ApiError::bad(format!("{name} must be a number of seconds")))?;
    let micros = second.saturating_mul(1_000_000);
    Ok(Some(Micros(if end {
        micros.saturating_add(999_999)
    } else {
        micros
    })))
}

pub(super) async fn one(
    State(sandboxes): Shared,
    Id(id): Id,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let from = second(&pairs, "start", false)?.unwrap_or(Micros(0));
    let to = second(&pairs, "end", true)?.unwrap_or(Micros(i64::MAX));
    sandboxes.get(&id).await?;
    let samples = sandboxes.samples.of(&id, from, to).await;
    let shown: Vec<Value> = samples.iter().map(shown).collect();
    Ok(error::json(StatusCode::OK, &shown))
}

pub(super) async fn many(State(sandboxes): Shared, pairs: Pairs) -> Result<Response, ApiError> {
    let given = pairs.0.iter().filter(|(name, _)| name == "sandbox_ids");
    let ids: Vec<&str> = given
        .flat_map(|(_, ids)| ids.split(','))
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .collect();
    if ids.is_empty() {
        return Err(ApiError::bad("sandbox_ids must name sandboxes"));
    }
    if ids.len() > MOST {
        return Err(ApiError::bad(format!(
            "sandbox_ids must name {MOST} sandboxes at most"
        )));
    }
    let mut found = Map::new();
    for id in ids {
        let id: SandboxId = id
            .parse()
            .map_err(|_| ApiError::bad("Invalid sandbox ID"))?;
        if let Some(sample) = sandboxes.samples.latest(&id) {
            found.insert(id.to_string(), shown(&sample));
        }
    }
    Ok(error::json(StatusCode::OK, &json!({ "sandboxes": found })))
}
