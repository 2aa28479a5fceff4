//! Requests that reach neither the API nor a guest.

use pool_api::SandboxId;

use crate::{
    admit::AdmitError, budget::OverBudget, limiter::LimitReached, route::RouteError,
    target::TargetError,
};

/// The reason why a request is not dispatched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    /// The request head exceeds the limit.
    #[error("the request head exceeds {limit} bytes")]
    HeadTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The request addresses neither the API nor a port of a sandbox.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The sandbox cannot be located.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The sandbox does not exist on its host, or requests do not wake it.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// Only the host may call this path of the guest agent.
    #[error("path {path:?} is for the host only")]
    HostOnlyPath {
        /// The path on the guest agent.
        path: String,
    },
    /// The traffic token is missing.
    #[error("the traffic token of sandbox {0} is missing")]
    TrafficTokenMissing(SandboxId),
    /// The traffic token is invalid.
    #[error("the traffic token of sandbox {0} is invalid")]
    TrafficTokenInvalid(SandboxId),
    /// The token of the guest agent is missing or invalid.
    #[error("the agent token of sandbox {0} is missing or invalid")]
    AgentUnauthorized(SandboxId),
    /// The sandbox is paused, and the tokens of the request do not wake it.
    #[error("sandbox {0} is paused and the tokens do not wake it")]
    ResumeForbidden(SandboxId),
    /// The sandbox has too many concurrent requests.
    #[error("sandbox {0}")]
    LimitReached(#[from] LimitReached<SandboxId>),
    /// The gateway, the API or the client has too many requests in flight.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// The request to the API has no key.
    #[error("the request has no API key")]
    ApiKeyMissing,
    /// The request to the API has another key.
    #[error("the API key is invalid")]
    ApiKeyInvalid,
    /// A health check without a key: the gateway answers it.
    #[error("the gateway answers the health check")]
    Health,
    /// The sandbox granted no lease.
    #[error(transparent)]
    Admit(#[from] AdmitError),
}
