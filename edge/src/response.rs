//! The responses of the gateway itself: the only mapping of errors to HTTP.
//!
//! Bodies, status codes and titles are E2B's, exactly: clients match them.

mod body;
mod cors;

use guest_api::envd;
use pingora::{http::ResponseHeader, proxy::Session};
use pool_api::{DialError, EnterError, FailedPart, Port, SandboxId};
use serde_json::json;

use self::body::{Body, ordered};
use crate::{
    admit::AdmitError, budget::OverBudget, context::SandboxRequest, limiter::LimitReached,
    metrics::RefusalReason, rejection::Rejection, target::Address,
};

/// `Retry-After` of a full host in seconds: about the time until an idle sandbox pauses and makes room.
const RETRY_AFTER: u32 = 2;
/// The longest path, in characters, that a response repeats.
const MAX_PATH: usize = 200;

/// A response of the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorResponse {
    status: u16,
    reason: RefusalReason,
    body: Body,
    retry_after: Option<u32>,
}

/// The stage at which a request to the API failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiFailure {
    /// There was no connection.
    Unreachable,
    /// The connection ended before a response.
    Disconnected,
}

// === impl ErrorResponse ===

impl ErrorResponse {
    /// Builds the response to a rejected request; `None` if its client has disconnected.
    pub(crate) fn rejected(rejection: &Rejection) -> Option<Self> {
        Some(match rejection {
            Rejection::HeadTooLarge { .. } => Self::text(
                431,
                RefusalReason::HeadTooLong,
                "Request header too large".to_owned(),
            ),
            Rejection::Target(error) => Self::text(400, RefusalReason::BadHost, error.to_string()),
            Rejection::Route(error) => Self::not_found(&error.sandbox),
            Rejection::NotFound(sandbox) => Self::not_found(sandbox),
            Rejection::HostOnlyPath { path } => Self::host_only_path(path),
            Rejection::TrafficTokenMissing(sandbox) => Self::traffic_token(
                sandbox,
                "Missing Traffic Access Token",
                "Token header 'e2b-traffic-access-token' is missing",
            ),
            Rejection::TrafficTokenInvalid(sandbox) => Self::traffic_token(
                sandbox,
                "Invalid Traffic Access Token",
                "Provided token in header 'e2b-traffic-access-token' is invalid",
            ),
            Rejection::ResumeForbidden(sandbox)
            | Rejection::Admit(AdmitError::Forbidden(sandbox)) => Self::resume_forbidden(sandbox),
            Rejection::LimitReached(error) => Self::limit_reached(error),
            Rejection::OverBudget(error) => Self::over_budget(error),
            Rejection::AgentUnauthorized(_) => Self::unauthorized(envd::UNAUTHORIZED),
            Rejection::ApiKeyMissing => Self::unauthorized("authorization header is missing"),
            Rejection::ApiKeyInvalid => Self::unauthorized(
                "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.",
            ),
            Rejection::Health => {
                let json = json!({ "status": "ok" }).to_string();
                Self::new(200, RefusalReason::Health, Body::Json(json))
            }
            Rejection::Admit(AdmitError::TimedOut { sandbox, .. }) => Self::sandbox(
                504,
                RefusalReason::WakeTimedOut,
                sandbox,
                "Sandbox Wake Timed Out",
                "The sandbox did not wake in time.",
            ),
            Rejection::Admit(AdmitError::Enter { source, .. }) => Self::not_entered(source),
            Rejection::Admit(AdmitError::ClientGone) => return None,
        })
    }

    /// Builds the response to a request that failed after its admission and before its response.
    pub(crate) fn upstream_failed(request: &SandboxRequest, malformed: bool) -> Self {
        let Address { sandbox, port } = &request.peer.address;
        match request.peer.dial_error.get() {
            Some(DialError::Closed(_)) => Self::port_closed(sandbox, *port),
            _ if request.is_revoked() => Self::not_found(sandbox),
            _ if malformed => Self::sandbox(
                502,
                RefusalReason::Disconnected,
                sandbox,
                "Malformed Response",
                "The service in the sandbox sent a response that is not valid HTTP, or that exceeds a limit",
            ),
            _ => Self::sandbox(
                502,
                RefusalReason::Disconnected,
                sandbox,
                "Connection Lost",
                "The service in the sandbox closed the connection before it responded",
            ),
        }
    }

    /// Builds the response to a request that the API did not answer.
    pub(crate) fn api_failed(failure: ApiFailure) -> Self {
        let (status, message, retry_after) = match failure {
            ApiFailure::Unreachable => (
                503,
                "the API is unavailable, try again in a moment",
                Some(1),
            ),
            ApiFailure::Disconnected => (
                502,
                "the API closed the connection before it responded",
                None,
            ),
        };
        let json = json!({ "code": status, "message": message }).to_string();
        let response = Self::new(status, RefusalReason::Unavailable, Body::Json(json));
        Self {
            retry_after,
            ..response
        }
    }

    /// Builds the response to a request that the proxy failed to forward.
    pub(crate) fn not_forwarded(status: u16) -> Self {
        let message = "failed to forward the request";
        let json = json!({ "code": status, "message": message }).to_string();
        Self::new(status, RefusalReason::Internal, Body::Json(json))
    }

    fn not_entered(error: &EnterError) -> Self {
        match error {
            // The host reports a transition only for a sandbox that is being killed.
            EnterError::NotFound(sandbox)
            | EnterError::Paused(sandbox)
            | EnterError::Transitioning { id: sandbox, .. } => Self::not_found(sandbox),
            EnterError::NoRoom { .. } => {
                let message =
                    "There is no room to wake the sandbox right now. Try again in a moment.";
                let json = json!({ "message": message, "code": 503 }).to_string();
                let title = "No Room";
                Self::json_or_page(503, RefusalReason::NoRoom, json, title, message.to_owned())
                    .retry_later()
            }
            EnterError::Backoff {
                id,
                retry_after_secs,
            } => Self {
                retry_after: Some(*retry_after_secs),
                ..Self::sandbox(
                    503,
                    RefusalReason::WakeFailed,
                    id,
                    "Sandbox Wake Failed",
                    "The sandbox could not be woken. Try again later.",
                )
            },
            EnterError::Failed {
                id,
                part: FailedPart::Guest,
                ..
            } => Self::sandbox(
                503,
                RefusalReason::WakeFailed,
                id,
                "Sandbox Wake Failed",
                "The sandbox could not be woken: its guest agent did not answer. Try again in a moment.",
            )
            .retry_later(),
            EnterError::Failed {
                id,
                part: FailedPart::Snapshot,
                ..
            } => Self::sandbox(
                503,
                RefusalReason::WakeFailed,
                id,
                "Sandbox Snapshot Damaged",
                "The sandbox could not be woken: a file of its snapshot is missing or damaged.",
            ),
            EnterError::Failed { id, .. } => Self::sandbox(
                503,
                RefusalReason::WakeFailed,
                id,
                "Sandbox Wake Failed",
                "The sandbox could not be woken. Try again in a moment.",
            )
            .retry_later(),
        }
    }

    /// Without a body, so that a client that does not read holds nothing.
    fn over_budget(error: &OverBudget) -> Self {
        let (status, reason) = match error {
            OverBudget::All | OverBudget::Api => (503, RefusalReason::Overloaded),
            OverBudget::Address(_) => (429, RefusalReason::TooMany),
        };
        Self {
            retry_after: Some(1),
            ..Self::new(status, reason, Body::Empty)
        }
    }

    fn unauthorized(message: &str) -> Self {
        let json = json!({ "code": 401, "message": message }).to_string();
        Self::new(401, RefusalReason::Unauthorized, Body::Json(json))
    }

    fn limit_reached(error: &LimitReached<SandboxId>) -> Self {
        let LimitReached {
            key: sandbox,
            limit,
        } = error;
        let message =
            format!("The sandbox has too many concurrent incoming connections (limit: {limit})");
        let json = ordered(&[
            ("sandboxId", json!(sandbox)),
            ("message", json!(message)),
            ("code", json!(429)),
            ("connectionLimit", json!(limit)),
        ]);
        let title = "Too Many Connections";
        Self::json_or_page(429, RefusalReason::TooMany, json, title, message).for_sandbox(sandbox)
    }

    fn traffic_token(sandbox: &SandboxId, title: &'static str, detail: &str) -> Self {
        let message = format!("Sandbox is secured with traffic access token. {detail}");
        Self::sandbox(403, RefusalReason::Forbidden, sandbox, title, &message)
    }

    fn not_found(sandbox: &SandboxId) -> Self {
        Self::sandbox(
            502,
            RefusalReason::NotFound,
            sandbox,
            "Sandbox Not Found",
            "The sandbox was not found",
        )
    }

    fn resume_forbidden(sandbox: &SandboxId) -> Self {
        let message = "This sandbox can't be resumed with the credentials provided. Check your access token and try again.";
        let title = "Unable to Resume Sandbox";
        Self::sandbox(403, RefusalReason::Forbidden, sandbox, title, message)
    }

    fn port_closed(sandbox: &SandboxId, port: Port) -> Self {
        let message = "The sandbox is running but port is not open";
        let json = ordered(&[
            ("sandboxId", json!(sandbox)),
            ("message", json!(message)),
            ("port", json!(port.get())),
            ("code", json!(502)),
        ]);
        let message = format!("{message}: no service running on port {port}");
        let title = "Closed Port Error";
        Self::json_or_page(502, RefusalReason::PortClosed, json, title, message)
            .for_sandbox(sandbox)
    }

    fn host_only_path(path: &str) -> Self {
        let message = "This endpoint is reserved for the E2B control plane and is not reachable through the sandbox URL";
        let path: String = path.chars().take(MAX_PATH).collect();
        let json = ordered(&[
            ("message", json!(message)),
            ("path", json!(path)),
            ("code", json!(404)),
        ]);
        let title = "Endpoint Not Available";
        Self::json_or_page(
            404,
            RefusalReason::Reserved,
            json,
            title,
            message.to_owned(),
        )
    }

    fn sandbox(
        status: u16,
        reason: RefusalReason,
        sandbox: &SandboxId,
        title: &'static str,
        message: &str,
    ) -> Self {
        let json = ordered(&[
            ("sandboxId", json!(sandbox)),
            ("message", json!(message)),
            ("code", json!(status)),
        ]);
        Self::json_or_page(status, reason, json, title, message.to_owned()).for_sandbox(sandbox)
    }

    fn json_or_page(
        status: u16,
        reason: RefusalReason,
        json: String,
        title: &'static str,
        message: String,
    ) -> Self {
        let body = Body::JsonOrPage {
            json,
            title,
            message,
            sandbox: None,
        };
        Self::new(status, reason, body)
    }

    fn text(status: u16, reason: RefusalReason, text: String) -> Self {
        Self::new(status, reason, Body::Text(text))
    }

    fn new(status: u16, reason: RefusalReason, body: Body) -> Self {
        Self {
            status,
            reason,
            body,
            retry_after: None,
        }
    }

    /// Names the sandbox in the page.
    fn for_sandbox(mut self, id: &SandboxId) -> Self {
        if let Body::JsonOrPage { sandbox, .. } = &mut self.body {
            *sandbox = Some(id.clone());
        }
        self
    }

    fn retry_later(self) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER),
            ..self
        }
    }

    /// Returns the reason, for the metrics.
    pub(crate) fn reason(&self) -> RefusalReason {
        self.reason
    }

    /// Returns the status code.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Sends the response.
    pub(crate) async fn send(self, session: &mut Session) -> pingora::Result<()> {
        let request = session.req_header();
        if let Some(header) = cors::preflight(request)? {
            return session.write_response_header(Box::new(header), true).await;
        }
        let retry_after = self.retry_after;
        let (content_type, text) = self.body.render(&request.headers);
        let is_head = request.method == http::Method::HEAD;
        let mut header = ResponseHeader::build(self.status, Some(5))?;
        cors::allow(&mut header)?;
        header.insert_header(http::header::CONTENT_TYPE, content_type)?;
        header.insert_header(http::header::CONTENT_LENGTH, text.len())?;
        header.insert_header(http::header::CACHE_CONTROL, "no-store")?;
        if let Some(seconds) = retry_after {
            header.insert_header(http::header::RETRY_AFTER, seconds)?;
        }
        let is_end = is_head || text.is_empty();
        session
            .write_response_header(Box::new(header), is_end)
            .await?;
        if !is_end {
            session.write_response_body(Some(text.into()), true).await?;
        }
        Ok(())
    }
}
