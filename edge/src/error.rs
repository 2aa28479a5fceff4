//! The only mapping of errors to answers.
//!
//! Bodies, codes and titles are the contract's, exactly: clients look for their words.

mod body;
mod cors;

use pingora::{Error, http::ResponseHeader, proxy::Session};
use pool_api::{DialError, EnterError, Port, SandboxId, SandboxState};
use serde_json::json;
use tracing::{debug, error, warn};

use self::body::{Body, ordered};
use crate::{
    access::Denied,
    admit::AdmitError,
    crowd::Full,
    host::{Address, HostError},
    metrics::Reason,
    route::RouteError,
    visit::Stay,
};

/// Seconds after which a full host is worth another try: about what an idle sandbox takes to make room.
const RETRY_AFTER: u32 = 2;

/// An answer the edge gives itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    status: u16,
    reason: Reason,
    body: Body,
    retry_after: Option<u32>,
}

// === impl Answer ===

impl Answer {
    /// A host nobody can make sense of.
    pub(crate) fn bad_host(error: HostError) -> Self {
        let text = match error {
            HostError::Host => "Invalid host",
            HostError::Sandbox => "Invalid sandbox ID",
            HostError::Port => "Invalid sandbox port",
            HostError::MissingHeader => "missing header",
        };
        Self::new(400, Reason::BadHost, Body::Text(text))
    }

    /// A target that is neither a path nor a whole URL.
    pub(crate) fn bad_target() -> Self {
        Self::new(400, Reason::BadHost, Body::Text("Invalid request target"))
    }

    /// A head that is longer than it may be.
    pub(crate) fn head_too_long() -> Self {
        let body = Body::Text("Request header too large");
        Self::new(431, Reason::HeadTooLong, body)
    }

    /// A sandbox with as many requests as it may have.
    pub(crate) fn too_many(full: &Full) -> Self {
        let message = format!(
            "The sandbox has too many concurrent incoming connections (limit: {})",
            full.limit
        );
        let json = ordered(&[
            ("sandboxId", json!(full.sandbox)),
            ("message", json!(message)),
            ("code", json!(429)),
            ("connectionLimit", json!(full.limit)),
        ]);
        let title = "Too Many Connections";
        Self::either(429, Reason::TooMany, json, title, message).about(&full.sandbox)
    }

    /// A sandbox that could not be routed to.
    pub(crate) fn unrouted(error: &RouteError) -> Self {
        match error {
            RouteError::Unknown(id) => Self::not_found(id),
            RouteError::Coordinator { sandbox, source } => {
                error!(%sandbox, error = %chain(source), "could not locate a sandbox");
                Self::sandbox(
                    503,
                    Reason::Unavailable,
                    sandbox,
                    "Sandbox Unavailable",
                    "The sandbox could not be located. Try again in a moment.",
                )
            }
        }
    }

    /// Tokens that are not good enough. `asleep`: the sandbox is paused, and requests may wake it.
    pub(crate) fn denied(denied: Denied, address: &Address, asleep: bool, path: &str) -> Self {
        let secured = "Sandbox is secured with traffic access token.";
        let header = "header 'e2b-traffic-access-token' is";
        match denied {
            Denied::Reserved => Self::reserved(path),
            Denied::TrafficTokenMissing | Denied::TrafficTokenInvalid if asleep => {
                Self::bad_credentials(&address.sandbox)
            }
            Denied::TrafficTokenMissing => {
                let message = format!("{secured} Token {header} missing");
                Self::sandbox(
                    403,
                    Reason::Forbidden,
                    &address.sandbox,
                    "Missing Traffic Access Token",
                    &message,
                )
            }
            Denied::TrafficTokenInvalid => {
                let message = format!("{secured} Provided token in {header} invalid");
                Self::sandbox(
                    403,
                    Reason::Forbidden,
                    &address.sandbox,
                    "Invalid Traffic Access Token",
                    &message,
                )
            }
        }
    }

    /// A request that was not let in; `None` when nobody is there to be answered.
    pub(crate) fn not_admitted(error: &AdmitError) -> Option<Self> {
        Some(match error {
            AdmitError::HungUp => return None,
            AdmitError::BadCredentials(id) => Self::bad_credentials(id),
            AdmitError::TimedOut { sandbox, limit } => {
                warn!(%sandbox, ?limit, "a sandbox did not wake in time");
                Self::sandbox(
                    504,
                    Reason::WakeTimedOut,
                    sandbox,
                    "Sandbox Wake Timed Out",
                    "The sandbox did not wake in time.",
                )
            }
            AdmitError::Enter(error) => Self::not_entered(error),
        })
    }

    fn not_entered(error: &EnterError) -> Self {
        match error {
            EnterError::NotFound(id)
            | EnterError::Paused(id)
            | EnterError::Transitioning {
                id,
                state: SandboxState::Stopping | SandboxState::Stopped(_),
            } => Self::not_found(id),
            EnterError::Transitioning { id, .. } => {
                let message = "The sandbox is still transitioning. Try again in a moment.";
                Self::sandbox(
                    409,
                    Reason::Transitioning,
                    id,
                    "Sandbox Still Transitioning",
                    message,
                )
            }
            EnterError::NoRoom { diagnostic } => {
                warn!(%diagnostic, "no room to wake a sandbox");
                let message =
                    "There is no room to wake the sandbox right now. Try again in a moment.";
                let json = json!({ "message": message, "code": 503 }).to_string();
                let mut answer =
                    Self::either(503, Reason::NoRoom, json, "No Room", message.to_owned());
                answer.retry_after = Some(RETRY_AFTER);
                answer
            }
            EnterError::Failed { id, source } => {
                error!(sandbox = %id, error = %chain(source.as_ref()), "could not wake a sandbox");
                let message = "The sandbox could not be woken. Try again in a moment.";
                let mut answer =
                    Self::sandbox(503, Reason::WakeFailed, id, "Sandbox Not Woken", message);
                answer.retry_after = Some(RETRY_AFTER);
                answer
            }
        }
    }

    /// A request that was inside a sandbox when something broke.
    pub(crate) fn broken(stay: &Stay) -> Self {
        let Address { sandbox, port } = &stay.address;
        match stay.outcome.get() {
            Some(DialError::Closed(_)) => Self::port_closed(sandbox, *port),
            _ if stay.is_revoked() => Self::not_found(sandbox),
            Some(DialError::Failed { source, .. }) => {
                warn!(%sandbox, %port, error = %chain(source), "could not connect into a guest");
                Self::disconnected(sandbox)
            }
            _ => Self::disconnected(sandbox),
        }
    }

    /// The API could not be reached, or did not answer.
    pub(crate) fn api_down(reached: bool) -> Self {
        let (status, message) = if reached {
            (502, "the API ended the connection before it answered")
        } else {
            (503, "the API is not available, try again in a moment")
        };
        let json = json!({ "code": status, "message": message }).to_string();
        let mut answer = Self::new(status, Reason::Unavailable, Body::Json(json));
        answer.retry_after = (!reached).then_some(1);
        answer
    }

    /// Something in the edge itself.
    pub(crate) fn internal(status: u16) -> Self {
        let json =
            json!({ "code": status, "message": "the request could not be carried" }).to_string();
        Self::new(status, Reason::Internal, Body::Json(json))
    }

    /// Unknown, killed, or paused for good as far as requests go.
    pub(crate) fn not_found(id: &SandboxId) -> Self {
        Self::sandbox(
            502,
            Reason::NotFound,
            id,
            "Sandbox Not Found",
            "The sandbox was not found",
        )
    }

    fn bad_credentials(id: &SandboxId) -> Self {
        let message = "This sandbox can't be resumed with the credentials provided. Check your access token and try again.";
        Self::sandbox(
            403,
            Reason::Forbidden,
            id,
            "Unable to Resume Sandbox",
            message,
        )
    }

    fn port_closed(id: &SandboxId, port: Port) -> Self {
        let message = "The sandbox is running but port is not open";
        let json = ordered(&[
            ("sandboxId", json!(id)),
            ("message", json!(message)),
            ("port", json!(port.get())),
            ("code", json!(502)),
        ]);
        let message = format!("{message}: no service running on port {port}");
        Self::either(502, Reason::PortClosed, json, "Closed Port Error", message).about(id)
    }

    fn disconnected(id: &SandboxId) -> Self {
        let message = "The service in the sandbox ended the connection before it answered";
        Self::sandbox(502, Reason::Disconnected, id, "Connection Lost", message)
    }

    fn reserved(path: &str) -> Self {
        let message = "This endpoint is reserved for the E2B control plane and is not reachable through the sandbox URL";
        let path: String = path.chars().take(200).collect();
        let json = ordered(&[
            ("message", json!(message)),
            ("path", json!(path)),
            ("code", json!(404)),
        ]);
        let title = "Endpoint Not Available";
        Self::either(404, Reason::Reserved, json, title, message.to_owned())
    }

    fn sandbox(
        status: u16,
        reason: Reason,
        id: &SandboxId,
        title: &'static str,
        message: &str,
    ) -> Self {
        let json = ordered(&[
            ("sandboxId", json!(id)),
            ("message", json!(message)),
            ("code", json!(status)),
        ]);
        Self::either(status, reason, json, title, message.to_owned()).about(id)
    }

    fn about(mut self, id: &SandboxId) -> Self {
        if let Body::Either { sandbox, .. } = &mut self.body {
            *sandbox = Some(id.clone());
        }
        self
    }

    fn either(
        status: u16,
        reason: Reason,
        json: String,
        title: &'static str,
        message: String,
    ) -> Self {
        let body = Body::Either {
            json,
            title,
            message,
            sandbox: None,
        };
        Self::new(status, reason, body)
    }

    fn new(status: u16, reason: Reason, body: Body) -> Self {
        Self {
            status,
            reason,
            body,
            retry_after: None,
        }
    }

    /// Why it is given.
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// The code it is sent with.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Sends it.
    pub(crate) async fn send(self, session: &mut Session) -> pingora::Result<()> {
        let request = session.req_header();
        if let Some(header) = cors::preflight(request)? {
            return session.write_response_header(Box::new(header), true).await;
        }
        let (content, text) = self.body.rendered(&request.headers);
        let bodiless = request.method == http::Method::HEAD;
        let mut header = ResponseHeader::build(self.status, Some(5))?;
        cors::allow(&mut header)?;
        header.insert_header(http::header::CONTENT_TYPE, content)?;
        header.insert_header(http::header::CONTENT_LENGTH, text.len())?;
        header.insert_header(http::header::CACHE_CONTROL, "no-store")?;
        if let Some(seconds) = self.retry_after {
            header.insert_header(http::header::RETRY_AFTER, seconds)?;
        }
        session
            .write_response_header(Box::new(header), bodiless)
            .await?;
        if !bodiless {
            session.write_response_body(Some(text.into()), true).await?;
        }
        Ok(())
    }
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Notes a failure of a request that was under way. What is named holds no header field and no body.
pub(crate) fn note(stay: Option<&Stay>, error: &Error) {
    match stay {
        Some(stay) => {
            debug!(sandbox = %stay.address.sandbox, port = %stay.address.port, %error, "a request broke");
        }
        None => debug!(%error, "a request broke"),
    }
}
