//! Handlers for one sandbox.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use pool_api::SandboxId;
use serde_json::json;
use uuid::Uuid;

use super::{
    dto::{self, ApiVersion, CreateBody, SandboxDetail, SandboxResponse, UnlimitedTimeout},
    error::{self, ApiError},
    extract::{self, ClientKind, Json, OptionalJson, PathId, RawBody},
    handler::{HandlerResult, Service, run_to_completion},
    idempotency_key::IdempotencyHeader,
};
use crate::{
    ledger::SandboxRecord,
    network::Network,
    service::{ConnectOutcome, CreateOutcome, GuestCheck, ResumeOptions, SandboxService},
};

/// The timeout of a resume or fork that names none, in seconds.
const DEFAULT_TIMEOUT: i64 = 15;
/// The timeout of a version 2 connect that names none, in seconds.
const DEFAULT_CONNECT_TIMEOUT: i64 = 300;
/// The shortest refresh, in seconds; shorter ones are raised to it.
const MIN_REFRESH: i64 = 15;
/// The longest refresh, in seconds.
const MAX_REFRESH: i64 = 3600;
/// Forks in one request.
const MAX_FORKS: i64 = 100;

/// `POST /sandboxes`
pub(super) async fn create_v1(
    State(service): Service,
    client: ClientKind,
    key: IdempotencyHeader,
    RawBody(body): RawBody,
) -> HandlerResult {
    let version = match client {
        ClientKind::Cube => ApiVersion::Cube,
        ClientKind::E2b | ClientKind::Other => ApiVersion::V1,
    };
    create(service, version, key, &body).await
}

/// `POST /v2/sandboxes`
pub(super) async fn create_v2(
    State(service): Service,
    key: IdempotencyHeader,
    RawBody(body): RawBody,
) -> HandlerResult {
    create(service, ApiVersion::V2, key, &body).await
}

async fn create(
    service: Arc<SandboxService>,
    version: ApiVersion,
    key: IdempotencyHeader,
    body: &[u8],
) -> HandlerResult {
    let path = match version {
        ApiVersion::V1 | ApiVersion::Cube => "/sandboxes",
        ApiVersion::V2 => "/v2/sandboxes",
    };
    let create: CreateBody = extract::parse(body)?;
    let request = create.validate(version, service.config().max_lifetime)?;
    let key = key.into_key(path, body);
    let outcome = run_to_completion(async move {
        match key {
            Some(key) => service.create_once(key, request, create_response).await,
            None => {
                let record = service.create(request).await?;
                Ok(CreateOutcome::Created(Box::new(record)))
            }
        }
    });
    let body = match outcome.await? {
        CreateOutcome::Created(record) => create_response(&record),
        CreateOutcome::Replayed(body) => body,
    };
    let content_type = (header::CONTENT_TYPE, error::JSON);
    Ok((StatusCode::CREATED, [content_type], body).into_response())
}

/// Renders the body of the response to a create request, which the ledger stores if the request is idempotent.
fn create_response(record: &SandboxRecord) -> String {
    json!(SandboxResponse::from(record)).to_string()
}

/// `GET /sandboxes/{id}`
pub(super) async fn detail(
    State(service): Service,
    PathId(id): PathId,
    client: ClientKind,
) -> HandlerResult {
    let view = service.get(&id).await?;
    Ok(error::json(
        StatusCode::OK,
        &SandboxDetail::new(&view, client),
    ))
}

/// `DELETE /sandboxes/{id}`
pub(super) async fn kill(State(service): Service, PathId(id): PathId) -> HandlerResult {
    run_to_completion(async move { service.kill(&id).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /sandboxes/{id}/pause`
pub(super) async fn pause(
    State(service): Service,
    PathId(id): PathId,
    OptionalJson(pause): OptionalJson<dto::PauseBody>,
) -> HandlerResult {
    let scope = dto::scope(pause.memory);
    let check = match pause.require_healthy_guest {
        Some(true) => GuestCheck::RequireResponsive,
        Some(false) | None => GuestCheck::Skip,
    };
    run_to_completion(async move { service.pause(&id, scope, check).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /sandboxes/{id}/resume`
pub(super) async fn resume(
    State(service): Service,
    PathId(id): PathId,
    client: ClientKind,
    OptionalJson(resume): OptionalJson<dto::ResumeBody>,
) -> HandlerResult {
    let seconds = match client {
        // Without a timeout: the one requested at creation.
        ClientKind::Cube => resume.timeout,
        ClientKind::E2b | ClientKind::Other => Some(resume.timeout.unwrap_or(DEFAULT_TIMEOUT)),
    };
    let max = service.config().max_lifetime;
    let lifetime = seconds.map(|seconds| dto::lifetime(seconds, max, UnlimitedTimeout::of(client)));
    let options = ResumeOptions {
        lifetime: lifetime.transpose()?,
        scope: dto::scope(resume.memory),
    };
    let record = run_to_completion(async move { service.resume(&id, options).await }).await?;
    Ok(error::json(
        StatusCode::CREATED,
        &SandboxResponse::from(&record),
    ))
}

/// `POST /sandboxes/{id}/connect`: without a timeout the sandbox keeps the one it has, as CubeSandbox's clients expect.
/// E2B's clients of this version always send one.
pub(super) async fn connect_v1(
    State(service): Service,
    PathId(id): PathId,
    client: ClientKind,
    OptionalJson(connect): OptionalJson<dto::ConnectBody>,
) -> HandlerResult {
    connect_sandbox(service, id, connect, UnlimitedTimeout::of(client)).await
}

/// `POST /v2/sandboxes/{id}/connect`
pub(super) async fn connect_v2(
    State(service): Service,
    PathId(id): PathId,
    OptionalJson(mut connect): OptionalJson<dto::ConnectBody>,
) -> HandlerResult {
    connect.timeout.get_or_insert(DEFAULT_CONNECT_TIMEOUT);
    connect_sandbox(service, id, connect, UnlimitedTimeout::Refused).await
}

async fn connect_sandbox(
    service: Arc<SandboxService>,
    id: SandboxId,
    connect: dto::ConnectBody,
    unlimited: UnlimitedTimeout,
) -> HandlerResult {
    let max = service.config().max_lifetime;
    let lifetime = connect
        .timeout
        .map(|seconds| dto::lifetime(seconds, max, unlimited));
    let options = ResumeOptions {
        lifetime: lifetime.transpose()?,
        scope: dto::scope(connect.memory),
    };
    let outcome = run_to_completion(async move { service.connect(&id, options).await });
    let (status, record) = match outcome.await? {
        ConnectOutcome::Running(record) => (StatusCode::OK, record),
        ConnectOutcome::Resumed(record) => (StatusCode::CREATED, record),
    };
    Ok(error::json(status, &SandboxResponse::from(&record)))
}

/// `POST /sandboxes/{id}/timeout`
pub(super) async fn set_timeout(
    State(service): Service,
    PathId(id): PathId,
    client: ClientKind,
    Json(timeout): Json<dto::TimeoutBody>,
) -> HandlerResult {
    let max = service.config().max_lifetime;
    let lifetime = dto::remaining_lifetime(timeout.timeout, max, UnlimitedTimeout::of(client))?;
    service.set_deadline(&id, lifetime).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /sandboxes/{id}/refreshes`
pub(super) async fn refresh(
    State(service): Service,
    PathId(id): PathId,
    OptionalJson(refresh): OptionalJson<dto::RefreshBody>,
) -> HandlerResult {
    let seconds = refresh.duration.unwrap_or(MIN_REFRESH);
    if !(0..=MAX_REFRESH).contains(&seconds) {
        return Err(ApiError::bad_request(format!(
            "duration must be between 0 and {MAX_REFRESH}"
        )));
    }
    let seconds = seconds.max(MIN_REFRESH);
    let max = service.config().max_lifetime;
    let lifetime = dto::lifetime(seconds, max, UnlimitedTimeout::Refused)?;
    service.extend_deadline(&id, lifetime).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /sandboxes/{id}/fork`
pub(super) async fn fork(
    State(service): Service,
    PathId(id): PathId,
    client: ClientKind,
    OptionalJson(fork): OptionalJson<dto::ForkBody>,
) -> HandlerResult {
    let count = fork.count.unwrap_or(1);
    if count > MAX_FORKS {
        return Err(ApiError::bad_request(format!(
            "Count must be at most {MAX_FORKS}"
        )));
    }
    let count = usize::try_from(count).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| ApiError::bad_request("Count must be at least 1"))?;
    let seconds = fork.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let max = service.config().max_lifetime;
    let lifetime = dto::lifetime(seconds, max, UnlimitedTimeout::of(client))?;
    let forks = run_to_completion(async move { service.fork(&id, count, lifetime).await }).await?;
    let results: Vec<_> = forks
        .into_iter()
        .map(|fork| match fork {
            Ok(record) => json!({ "sandbox": SandboxResponse::from(&record) }),
            Err(error) => json!({ "error": ApiError::from(error) }),
        })
        .collect();
    Ok(error::json(StatusCode::CREATED, &results))
}

/// `PUT /sandboxes/{id}/network`
pub(super) async fn set_network(
    State(service): Service,
    PathId(id): PathId,
    OptionalJson(network): OptionalJson<Network>,
) -> HandlerResult {
    network
        .validate()
        .map_err(crate::error::ServiceError::from)?;
    run_to_completion(async move { service.set_network(&id, network).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /sandboxes/{id}/rollback`
pub(super) async fn roll_back(
    State(service): Service,
    PathId(id): PathId,
    Json(rollback): Json<dto::RollbackBody>,
) -> HandlerResult {
    let (sandbox, snapshot) = (id.clone(), rollback.snapshot_id.clone());
    run_to_completion(async move { service.roll_back(&sandbox, &snapshot).await }).await?;
    let body = json!({
        "sandboxID": id,
        "snapshotID": rollback.snapshot_id,
        "operationID": Uuid::new_v4().to_string(),
        "status": "success",
    });
    Ok(error::json(StatusCode::OK, &body))
}
