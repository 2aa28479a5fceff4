//! Steps 1 to 5 of a request, in their order: which sandbox, where, may it, is there a place, and in.

use std::sync::Arc;

use coordinator::{Coordinator, Placement};
use guest_api::envd;
use http::HeaderMap;
use pingora::{http::RequestHeader, protocols::http::ServerSession, proxy::Session};
use pool_api::{Lease, Node, SandboxState};
use tokio::time::Instant;

use crate::{
    access::{self, Permit},
    admit::{AdmitError, admit},
    client::Client,
    config::Config,
    crowd::{Crowd, Seat},
    error::Answer,
    guise::Guise,
    host::{self, Address, Destination, Target},
    metrics::Metrics,
    path::Prefix,
    route::route,
    timing::Timing,
    visit::{Purpose, Stay, Vigil},
};

/// Lets requests in.
#[derive(Debug)]
pub(crate) struct Reception {
    config: Config,
    node: Arc<dyn Node>,
    coordinator: Arc<Coordinator>,
    crowd: Crowd,
    metrics: Arc<Metrics>,
}

/// A request that goes no further.
pub(crate) enum Stop {
    /// It gets this answer.
    Answer(Answer),
    /// Nobody waits for one.
    HungUp,
}

/// A request whose tokens are good and that has a place.
struct Ticket {
    address: Address,
    guise: Guise,
    permit: Permit,
    seat: Seat,
    timing: Timing,
}

impl Reception {
    pub(crate) fn new(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let crowd = Crowd::new(config.limits.connections_per_sandbox);
        Self {
            config,
            node,
            coordinator,
            crowd,
            metrics,
        }
    }

    /// Takes a request as far as it may go.
    pub(crate) async fn receive(
        &self,
        session: &mut Session,
        client: Option<&Client>,
    ) -> Result<Purpose, Stop> {
        let request = session.req_header();
        if head_size(request) > self.config.limits.head_bytes {
            return Err(Stop::Answer(Answer::head_too_long()));
        }
        if !is_target(request) {
            return Err(Stop::Answer(Answer::bad_target()));
        }
        let target = Target {
            headers: &request.headers,
            authority: request.uri.host(),
            path: request.uri.path(),
        };
        match host::destination(target, self.config.domain.as_deref()) {
            Ok(Destination::Api) => {
                let idle = self.config.limits.idle_stream;
                Ok(Purpose::Api(Vigil::new(client.cloned(), idle)))
            }
            Ok(Destination::Sandbox(address, prefix)) => {
                let ticket = self.check(request, address, prefix).await;
                let ticket = ticket.map_err(Stop::Answer)?;
                self.enter(session, ticket, client)
                    .await
                    .map(Purpose::Sandbox)
            }
            Err(error) => Err(Stop::Answer(Answer::bad_host(error))),
        }
    }

    /// Everything before the host is asked to let the request in. Nothing wakes here.
    async fn check(
        &self,
        request: &RequestHeader,
        address: Address,
        prefix: Option<Prefix>,
    ) -> Result<Ticket, Answer> {
        let began = Instant::now();
        let mut timing = Timing::default();
        let placement = route(self.coordinator.as_ref(), &address.sandbox)
            .await
            .map_err(|error| Answer::unrouted(&error))?;
        timing.route = began.elapsed();
        let path = match &prefix {
            Some(prefix) => {
                String::from_utf8_lossy(&prefix.strip(request.uri.path().as_bytes())).into_owned()
            }
            None => request.uri.path().to_owned(),
        };
        let permit = self
            .permit(&request.headers, &path, &address, &placement)
            .await?;
        let seat = self.crowd.join(&address.sandbox);
        let seat = seat.map_err(|full| Answer::too_many(&full))?;
        // The guest agent is always shown the host that was asked for, and speaks no TLS.
        let of_user = address.port.get() != envd::AGENT_PORT;
        let mask = placement.access.mask_request_host.filter(|_| of_user);
        let ports = placement.access.https_ports;
        let guise = Guise {
            tls: of_user && ports.contains(&address.port.get()),
            masked_host: mask.map(|mask| mask.replace("${PORT}", &address.port.to_string())),
            prefix,
        };
        Ok(Ticket {
            address,
            guise,
            permit,
            seat,
            timing,
        })
    }

    async fn enter(
        &self,
        session: &mut Session,
        mut ticket: Ticket,
        client: Option<&Client>,
    ) -> Result<Box<Stay>, Stop> {
        let began = Instant::now();
        let (node, limit) = (self.node.as_ref(), self.config.wake_timeout);
        let entered = admit(node, ticket.permit, hung_up(session, client), limit).await;
        let lease: Arc<dyn Lease> = match entered {
            Ok(lease) => Arc::from(lease),
            Err(AdmitError::HungUp) => {
                if let Some(client) = client {
                    client.note_cancelled();
                }
                return Err(Stop::HungUp);
            }
            Err(error) => {
                return Err(Answer::not_admitted(&error).map_or(Stop::HungUp, Stop::Answer));
            }
        };
        ticket.timing.admit = began.elapsed();
        if let Some(wake) = lease.wake()
            && ticket.seat.first_to_see(lease.epoch())
        {
            self.metrics.woken(wake);
        }
        Ok(Box::new(Stay::new(
            ticket.address,
            ticket.guise,
            lease,
            ticket.seat,
            ticket.timing,
            client.cloned(),
            self.config.limits.idle_stream,
        )))
    }

    async fn permit(
        &self,
        headers: &HeaderMap,
        path: &str,
        address: &Address,
        placement: &Placement,
    ) -> Result<Permit, Answer> {
        let denied = match access::check(address, &placement.access, headers, path) {
            Ok(permit) => return Ok(permit),
            Err(denied) => denied,
        };
        // What a refused caller is told depends on whether the sandbox sleeps. Asking wakes nothing.
        let info = self.node.info(&address.sandbox).await;
        let asleep = match info.map(|info| info.state) {
            None | Some(SandboxState::Stopping | SandboxState::Stopped(_)) => {
                return Err(Answer::not_found(&address.sandbox));
            }
            Some(SandboxState::Paused | SandboxState::Pausing)
                if denied != access::Denied::Reserved && !placement.access.auto_resume =>
            {
                return Err(Answer::not_found(&address.sandbox));
            }
            Some(state) => matches!(state, SandboxState::Paused | SandboxState::Pausing),
        };
        Err(Answer::denied(denied, address, asleep, path))
    }
}

/// Whether what is asked for has a path that all who read it agree on. `init`, for one, is a host to some.
fn is_target(request: &RequestHeader) -> bool {
    let target = request.raw_path();
    let begins = |scheme: &[u8]| {
        let beginning = target.get(..scheme.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme))
    };
    target.starts_with(b"/") || target == b"*" || begins(b"http://") || begins(b"https://")
}

/// Bytes of a request's target and fields.
fn head_size(request: &RequestHeader) -> usize {
    let fields = request.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    fields + request.raw_path().len()
}

/// Returns once nobody waits for the answer any more.
async fn hung_up(session: &mut Session, client: Option<&Client>) {
    match session.as_downstream_mut() {
        // Pingora's session sees the stream's end, and the connection's.
        ServerSession::H2(stream) => drop(stream.idle().await),
        _ => match client {
            Some(client) => client.hung_up().await,
            None => std::future::pending().await,
        },
    }
}
