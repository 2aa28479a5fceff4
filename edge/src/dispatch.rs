//! Steps 1 to 4 of a request, in order: target, route, access, concurrency limit, admission.

use std::sync::Arc;

use coordinator::{Access, Coordinator};
use guest_api::envd;
use http::{HeaderMap, Method};
use pingora::{http::RequestHeader, protocols::http::ServerSession, proxy::Session};
use pool_api::{Lease, Node, SandboxId, SandboxState};
use tokio::time::Instant;

use crate::{
    access::{self, Denied, Permit},
    admit::{AdmitError, admit},
    api_key::{self, ApiKey},
    budget::{RequestBudget, RequestShare},
    client::Client,
    config::Config,
    context::{ApiRequest, RequestContext, RequestKind, SandboxRequest},
    forwarded::Forwarded,
    limiter::{ConcurrencyLimiter, Slot},
    rejection::Rejection,
    rewrite::Rewrite,
    route::route,
    target::{self, Destination, Target},
    timing::Timing,
    upstream::{DialErrorSlot, PeerSpec},
    watchdog::IdleWatchdog,
};

/// Dispatches requests to the API and into sandboxes.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    config: Config,
    node: Arc<dyn Node>,
    coordinator: Arc<Coordinator>,
    limiter: ConcurrencyLimiter<SandboxId>,
    budget: RequestBudget,
}

/// A request with checked tokens and a slot.
struct AuthorizedRequest {
    target: Target,
    permit: Permit,
    slot: Slot<SandboxId>,
    tls: bool,
    masked_host: Option<String>,
    timing: Timing,
}

impl Dispatcher {
    pub(crate) fn new(config: Config, node: Arc<dyn Node>, coordinator: Arc<Coordinator>) -> Self {
        let limiter = ConcurrencyLimiter::new(config.limits.connections_per_sandbox);
        let budget = RequestBudget::new(&config.limits);
        Self {
            config,
            node,
            coordinator,
            limiter,
            budget,
        }
    }

    /// Takes a request through steps 1 to 4. Its share of the budget stays in `context` until its end.
    pub(crate) async fn dispatch(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
    ) -> Result<RequestKind, Rejection> {
        let limits = &self.config.limits;
        // Until the request is admitted to a sandbox, its response is small and complete.
        session
            .as_downstream_mut()
            .set_write_timeout(Some(limits.stalled_response));
        let share = context.share.insert(self.budget.take(session)?);
        let request = session.req_header();
        if head_size(request) > limits.head_bytes {
            return Err(Rejection::HeadTooLarge {
                limit: limits.head_bytes,
            });
        }
        let client = context.client.as_ref();
        match target::resolve(request, self.config.domain.as_deref())? {
            Destination::Api => self.api(request, client).map(RequestKind::Api),
            Destination::Sandbox(target) => {
                let request = self.authorize(&request.headers, target).await?;
                let request = self.enter(session, request, client, share).await?;
                session
                    .as_downstream_mut()
                    .set_write_timeout(Some(limits.idle_stream));
                Ok(RequestKind::Sandbox(Box::new(request)))
            }
        }
    }

    /// Admits a request to the API: nothing is dialed for one without the key.
    fn api(
        &self,
        request: &RequestHeader,
        client: Option<&Client>,
    ) -> Result<ApiRequest, Rejection> {
        let key = self.config.api_key.as_ref();
        let key = key.map_or(ApiKey::Valid, |key| api_key::check(&request.headers, key));
        let is_health = api_key::is_health(request.uri.path());
        match key {
            // The API answers preflights, which have no key.
            ApiKey::Missing | ApiKey::Invalid if request.method == Method::OPTIONS => {}
            ApiKey::Missing | ApiKey::Invalid if is_health => return Err(Rejection::Health),
            ApiKey::Missing => return Err(Rejection::ApiKeyMissing),
            ApiKey::Invalid => return Err(Rejection::ApiKeyInvalid),
            ApiKey::Valid => {}
        }
        Ok(ApiRequest {
            _share: self.budget.take_api()?,
            watchdog: IdleWatchdog::spawn(None, client.cloned(), self.config.limits.idle_stream),
        })
    }

    /// Completes every step that precedes the admission. No sandbox wakes here.
    async fn authorize(
        &self,
        headers: &HeaderMap,
        target: Target,
    ) -> Result<AuthorizedRequest, Rejection> {
        let started = Instant::now();
        let placement = route(self.coordinator.as_ref(), &target.address.sandbox)?;
        let timing = Timing {
            route: started.elapsed(),
            ..Timing::default()
        };
        let access = placement.access;
        let permit = match access::check(&target, &access, headers) {
            Ok(permit) => permit,
            Err(denied) => return Err(self.reject(denied, target, &access).await),
        };
        let slot = self.limiter.acquire(&target.address.sandbox)?;
        // The guest agent always receives the requested host, and does not serve TLS.
        let port = target.address.port.get();
        let is_agent = port == envd::AGENT_PORT;
        let mask = access.mask_request_host.filter(|_| !is_agent);
        Ok(AuthorizedRequest {
            tls: !is_agent && access.https_ports.contains(&port),
            masked_host: mask.map(|mask| mask.replace("${PORT}", &port.to_string())),
            target,
            permit,
            slot,
            timing,
        })
    }

    /// Rejects a request without a permit. The response depends on the state of the sandbox; the query wakes nothing.
    async fn reject(&self, denied: Denied, target: Target, access: &Access) -> Rejection {
        let sandbox = target.address.sandbox;
        let info = self.node.info(&sandbox).await;
        let is_paused = match info.map(|info| info.state) {
            None | Some(SandboxState::Stopping | SandboxState::Stopped(_)) => {
                return Rejection::NotFound(sandbox);
            }
            Some(state) => matches!(state, SandboxState::Paused | SandboxState::Pausing),
        };
        match denied {
            Denied::HostOnlyPath => Rejection::HostOnlyPath {
                path: target.guest_path.path().into_owned(),
            },
            _ if is_paused && !access.auto_resume => Rejection::NotFound(sandbox),
            _ if is_paused => Rejection::ResumeForbidden(sandbox),
            Denied::AgentToken => Rejection::AgentUnauthorized(sandbox),
            Denied::TrafficTokenMissing => Rejection::TrafficTokenMissing(sandbox),
            Denied::TrafficTokenInvalid => Rejection::TrafficTokenInvalid(sandbox),
        }
    }

    /// Waits for a lease on a sandbox that does not run. The wait counts towards the wakes of the client's address.
    async fn wait(
        &self,
        session: &mut Session,
        permit: Permit,
        client: Option<&Client>,
        share: &RequestShare,
    ) -> Result<Box<dyn Lease>, Rejection> {
        let _wake = self.budget.take_wake(share)?;
        let (node, timeout) = (self.node.as_ref(), self.config.wake_timeout);
        let admitted = admit(node, permit, client_gone(session, client), timeout).await;
        if let (Err(AdmitError::ClientGone), Some(client)) = (&admitted, client) {
            client.mark_cancelled();
        }
        Ok(admitted?)
    }

    async fn enter(
        &self,
        session: &mut Session,
        request: AuthorizedRequest,
        client: Option<&Client>,
        share: &RequestShare,
    ) -> Result<SandboxRequest, Rejection> {
        let started = Instant::now();
        let lease = match self.node.try_enter(&request.target.address.sandbox) {
            Some(lease) => lease,
            None => self.wait(session, request.permit, client, share).await?,
        };
        let lease: Arc<dyn Lease> = Arc::from(lease);
        let idle_timeout = self.config.limits.idle_stream;
        Ok(SandboxRequest {
            watchdog: IdleWatchdog::spawn(Some(lease.clone()), client.cloned(), idle_timeout),
            peer: PeerSpec {
                address: request.target.address,
                lease,
                tls: request.tls,
                dial_error: DialErrorSlot::default(),
            },
            rewrite: Rewrite {
                guest_path: request.target.guest_path,
                prefix: request.target.prefix,
                masked_host: request.masked_host,
                forwarded: Forwarded::of(session),
            },
            timing: Timing {
                admit: started.elapsed(),
                ..request.timing
            },
            _slot: request.slot,
        })
    }
}

/// Returns the size of a request's target and headers in bytes.
fn head_size(request: &RequestHeader) -> usize {
    let headers = request.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    headers + request.raw_path().len()
}

/// Completes once the client has disconnected or reset its stream.
async fn client_gone(session: &mut Session, client: Option<&Client>) {
    match session.as_downstream_mut() {
        // Pingora's session sees the end of the stream, and of its connection.
        ServerSession::H2(stream) => drop(stream.idle().await),
        _ => match client {
            Some(client) => client.disconnected().await,
            None => std::future::pending().await,
        },
    }
}
