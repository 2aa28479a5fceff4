//! Routes of one sandbox.

use std::time::Duration;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    Shared,
    dto::{self, Detail, Sandbox},
    error::{self, ApiError},
    extract::{Body, Id, Optional},
};
use crate::sandboxes::{Connected, Failure, NewSandbox, Sandboxes};

type Answer = Result<Response, ApiError>;

/// A refresh asks for this at least.
const SHORTEST_REFRESH: i64 = 15;
/// And for this at most.
const LONGEST_REFRESH: i64 = 3600;
/// Forks in one call.
const MOST_FORKS: i64 = 100;

pub(super) async fn create_v1(State(sandboxes): Shared, Body(new): Body<dto::NewV1>) -> Answer {
    let new = new.checked(sandboxes.config.longest)?;
    create(&sandboxes, new).await
}

pub(super) async fn create_v2(State(sandboxes): Shared, Body(new): Body<dto::NewV2>) -> Answer {
    let new = new.checked(sandboxes.config.longest)?;
    create(&sandboxes, new).await
}

async fn create(sandboxes: &Sandboxes, new: NewSandbox) -> Answer {
    let entry = sandboxes.create(new).await?;
    Ok(error::json(StatusCode::CREATED, &Sandbox::from(&entry)))
}

pub(super) async fn detail(State(sandboxes): Shared, Id(id): Id) -> Answer {
    let seen = sandboxes.get(&id).await?;
    Ok(error::json(StatusCode::OK, &Detail::from(&seen)))
}

pub(super) async fn kill(State(sandboxes): Shared, Id(id): Id) -> Answer {
    sandboxes.kill(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn pause(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(pause): Optional<dto::Pause>,
) -> Answer {
    if pause.memory == Some(false) {
        return Err(ApiError::bad("a pause without memory is not supported"));
    }
    sandboxes.pause(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn resume(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(resume): Optional<dto::Resume>,
) -> Answer {
    with_memory(resume.memory)?;
    let timeout = dto::span(resume.timeout.unwrap_or(15), sandboxes.config.longest)?;
    let entry = sandboxes.resume(&id, timeout).await?;
    Ok(error::json(StatusCode::CREATED, &Sandbox::from(&entry)))
}

pub(super) async fn connect_v1(
    State(sandboxes): Shared,
    Id(id): Id,
    Body(connect): Body<dto::ConnectV1>,
) -> Answer {
    with_memory(connect.memory)?;
    connected(&sandboxes, &id, connect.timeout).await
}

pub(super) async fn connect_v2(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(connect): Optional<dto::ConnectV2>,
) -> Answer {
    with_memory(connect.memory)?;
    connected(&sandboxes, &id, connect.timeout.unwrap_or(300)).await
}

async fn connected(sandboxes: &Sandboxes, id: &pool_api::SandboxId, timeout: i64) -> Answer {
    let timeout = dto::span(timeout, sandboxes.config.longest)?;
    let (status, entry) = match sandboxes.connect(id, timeout).await? {
        Connected::Running(entry) => (StatusCode::OK, entry),
        Connected::Resumed(entry) => (StatusCode::CREATED, entry),
    };
    Ok(error::json(status, &Sandbox::from(&entry)))
}

fn with_memory(memory: Option<bool>) -> Result<(), Failure> {
    if memory == Some(false) {
        return Err(Failure::InvalidCode {
            message: "starting a sandbox from its disk alone is not enabled",
            error_code: "sandbox_memory_override_disabled",
        });
    }
    Ok(())
}

pub(super) async fn timeout(
    State(sandboxes): Shared,
    Id(id): Id,
    Body(timeout): Body<dto::Timeout>,
) -> Answer {
    let span = u64::try_from(timeout.timeout).map(Duration::from_secs);
    let span = span.map_err(|_| ApiError::bad("Timeout must not be negative"))?;
    if span > sandboxes.config.longest {
        return Err(ApiError::bad("Max instance length exceeded"));
    }
    sandboxes.set_timeout(&id, span).await?;
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
    let span = dto::span(seconds.max(SHORTEST_REFRESH), sandboxes.config.longest)?;
    sandboxes.extend(&id, span).await?;
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
    let count = usize::try_from(count.min(MOST_FORKS + 1))
        .map_err(|_| ApiError::bad("Count must be at least 1"))?;
    if count > usize::try_from(MOST_FORKS).unwrap_or(usize::MAX) {
        return Err(ApiError::bad(format!("Count must be at most {MOST_FORKS}")));
    }
    let timeout = dto::span(fork.timeout.unwrap_or(15), sandboxes.config.longest)?;
    let outcomes = sandboxes.fork(&id, count, timeout).await?;
    let results: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Ok(entry) => json!({ "sandbox": Sandbox::from(&entry) }),
            Err(failure) => json!({ "error": ApiError::from(failure) }),
        })
        .collect();
    Ok(error::json(StatusCode::CREATED, &results))
}
