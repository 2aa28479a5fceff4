//! Routes of one sandbox.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use pool_api::SandboxId;
use serde_json::json;
use uuid::Uuid;

use super::{
    Shared, carried_out,
    dto::{self, Detail, Generation, New, Sandbox},
    error::{self, ApiError},
    extract::{self, Audience, Body, Id, Optional, Raw},
    idempotent::Idempotent,
};
use crate::{
    ledger::Entry,
    network::Network,
    sandboxes::{Connected, Made, Sandboxes, Wish},
};

type Answer = Result<Response, ApiError>;

/// A refresh asks for this at least.
const SHORTEST_REFRESH: i64 = 15;
/// And for this at most.
const LONGEST_REFRESH: i64 = 3600;
/// Forks in one call.
const MOST_FORKS: i64 = 100;

pub(super) async fn create_v1(
    State(sandboxes): Shared,
    audience: Audience,
    key: Idempotent,
    Raw(body): Raw,
) -> Answer {
    let generation = match audience {
        Audience::Cube => Generation::Cube,
        Audience::E2b | Audience::Native => Generation::First,
    };
    create(sandboxes, generation, key, &body).await
}

pub(super) async fn create_v2(State(sandboxes): Shared, key: Idempotent, Raw(body): Raw) -> Answer {
    create(sandboxes, Generation::Second, key, &body).await
}

async fn create(
    sandboxes: Arc<Sandboxes>,
    generation: Generation,
    key: Idempotent,
    body: &[u8],
) -> Answer {
    let path = match generation {
        Generation::First | Generation::Cube => "/sandboxes",
        Generation::Second => "/v2/sandboxes",
    };
    let new: New = extract::parse(body)?;
    let new = new.meant(generation, sandboxes.config.longest)?;
    let key = key.key(path, body);
    let made = carried_out(async move {
        match key {
            Some(key) => sandboxes.create_once(key, new, answered).await,
            None => {
                let entry = sandboxes.create(new, None).await?;
                Ok(Made::Now(Box::new(entry)))
            }
        }
    });
    let body = match made.await? {
        Made::Now(entry) => answered(&entry),
        Made::Before(body) => body,
    };
    let content = (header::CONTENT_TYPE, error::JSON);
    Ok((StatusCode::CREATED, [content], body).into_response())
}

/// What the maker of a sandbox is told, now and whenever it asks again.
fn answered(entry: &Entry) -> String {
    json!(Sandbox::from(entry)).to_string()
}

pub(super) async fn detail(State(sandboxes): Shared, Id(id): Id, audience: Audience) -> Answer {
    let seen = sandboxes.get(&id).await?;
    Ok(error::json(StatusCode::OK, &Detail::new(&seen, audience)))
}

pub(super) async fn kill(State(sandboxes): Shared, Id(id): Id) -> Answer {
    carried_out(async move { sandboxes.kill(&id).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn pause(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(pause): Optional<dto::Pause>,
) -> Answer {
    let (keep, healthy) = (
        dto::keep(pause.memory),
        pause.require_healthy_guest == Some(true),
    );
    carried_out(async move { sandboxes.pause(&id, keep, healthy).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn resume(
    State(sandboxes): Shared,
    Id(id): Id,
    audience: Audience,
    Optional(resume): Optional<dto::Resume>,
) -> Answer {
    let seconds = match audience {
        // What it was given when it was made.
        Audience::Cube => resume.timeout,
        Audience::E2b | Audience::Native => Some(resume.timeout.unwrap_or(15)),
    };
    let window = seconds.map(|seconds| dto::window(seconds, sandboxes.config.longest, true));
    let wish = Wish {
        window: window.transpose()?,
        from: dto::keep(resume.memory),
    };
    let entry = carried_out(async move { sandboxes.resume(&id, wish).await }).await?;
    Ok(error::json(StatusCode::CREATED, &Sandbox::from(&entry)))
}

/// Without a timeout the sandbox keeps the one it has, as CubeSandbox's clients mean it; E2B's of this generation always
/// say one.
pub(super) async fn connect_v1(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(connect): Optional<dto::Connect>,
) -> Answer {
    connected(sandboxes, id, connect, Generation::First).await
}

pub(super) async fn connect_v2(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(mut connect): Optional<dto::Connect>,
) -> Answer {
    connect.timeout = Some(connect.timeout.unwrap_or(300));
    connected(sandboxes, id, connect, Generation::Second).await
}

async fn connected(
    sandboxes: Arc<Sandboxes>,
    id: SandboxId,
    connect: dto::Connect,
    generation: Generation,
) -> Answer {
    let (longest, never) = (sandboxes.config.longest, generation != Generation::Second);
    let window = connect
        .timeout
        .map(|seconds| dto::window(seconds, longest, never));
    let wish = Wish {
        window: window.transpose()?,
        from: dto::keep(connect.memory),
    };
    let connected = carried_out(async move { sandboxes.connect(&id, wish).await });
    let (status, entry) = match connected.await? {
        Connected::Running(entry) => (StatusCode::OK, entry),
        Connected::Resumed(entry) => (StatusCode::CREATED, entry),
    };
    Ok(error::json(status, &Sandbox::from(&entry)))
}

pub(super) async fn timeout(
    State(sandboxes): Shared,
    Id(id): Id,
    Body(timeout): Body<dto::Timeout>,
) -> Answer {
    let window = dto::timeout(timeout.timeout, sandboxes.config.longest)?;
    sandboxes.set_timeout(&id, window).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn refresh(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(refresh): Optional<dto::Refresh>,
) -> Answer {
    let seconds = refresh.duration.unwrap_or(SHORTEST_REFRESH);
    if !(0..=LONGEST_REFRESH).contains(&seconds) {
        return Err(ApiError::bad(format!(
            "duration must be between 0 and {LONGEST_REFRESH}"
        )));
    }
    let seconds = seconds.max(SHORTEST_REFRESH);
    let window = dto::window(seconds, sandboxes.config.longest, false)?;
    sandboxes.extend(&id, window).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn fork(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(fork): Optional<dto::Fork>,
) -> Answer {
    let count = fork.count.unwrap_or(1);
    if count < 1 {
        return Err(ApiError::bad("Count must be at least 1"));
    }
    if count > MOST_FORKS {
        return Err(ApiError::bad(format!("Count must be at most {MOST_FORKS}")));
    }
    let count = usize::try_from(count).map_err(|_| ApiError::bad("Count must be at least 1"))?;
    let window = dto::window(fork.timeout.unwrap_or(15), sandboxes.config.longest, true)?;
    let outcomes = carried_out(async move { sandboxes.fork(&id, count, window).await }).await?;
    let results: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Ok(entry) => json!({ "sandbox": Sandbox::from(&entry) }),
            Err(failure) => json!({ "error": ApiError::from(failure) }),
        })
        .collect();
    Ok(error::json(StatusCode::CREATED, &results))
}

pub(super) async fn network(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(network): Optional<Network>,
) -> Answer {
    network.check()?;
    carried_out(async move { sandboxes.set_network(&id, network).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn rollback(
    State(sandboxes): Shared,
    Id(id): Id,
    Body(rollback): Body<dto::Rollback>,
) -> Answer {
    let (sandbox, snapshot) = (id.clone(), rollback.snapshot_id.clone());
    carried_out(async move { sandboxes.roll_back(&sandbox, &snapshot).await }).await?;
    let body = json!({
        "sandboxID": id,
        "snapshotID": rollback.snapshot_id,
        "operationID": Uuid::new_v4().to_string(),
        "status": "success",
    });
    Ok(error::json(StatusCode::OK, &body))
}
