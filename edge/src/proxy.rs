//! Pingora's phases, and nothing else: each calls the module that does the step.

use std::{os::fd::RawFd, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use coordinator::{Coordinator, Placement};
use http::{StatusCode, header};
use pingora::{
    Error, ErrorSource, ErrorType, OrErr,
    http::{RequestHeader, ResponseHeader},
    protocols::Digest,
    proxy::{FailToProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};
use pool_api::{Node, Port, SandboxState};
use tokio::time::Instant;

use crate::{
    access::{self, Permit},
    admit::{AdmitError, admit},
    client::Client,
    config::Config,
    error::{Answer, note},
    host::{self, Address, Destination},
    route::route,
    timing::Timing,
    upstream::{Line, Traffic, Upstreams},
    visit::{Purpose, Stay, Visit},
};

/// The proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    config: Config,
    node: Arc<dyn Node>,
    coordinator: Arc<dyn Coordinator>,
    upstreams: Upstreams,
}

/// A request that goes no further.
enum Stop {
    /// It gets this answer.
    Answer(Answer),
    /// Nobody waits for one.
    HungUp,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn new(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<dyn Coordinator>,
    ) -> Self {
        let upstreams = Upstreams::new(&config);
        Self {
            config,
            node,
            coordinator,
            upstreams,
        }
    }

    async fn receive(
        &self,
        request: &RequestHeader,
        client: Option<&Client>,
    ) -> Result<Purpose, Stop> {
        let authority = request.uri.host();
        match host::destination(&request.headers, authority) {
            Ok(Destination::Api) => Ok(Purpose::Api),
            Ok(Destination::Sandbox(address)) => self
                .enter(request, address, client)
                .await
                .map(Purpose::Sandbox),
            Err(error) => Err(Stop::Answer(Answer::bad_host(error))),
        }
    }

    async fn enter(
        &self,
        request: &RequestHeader,
        address: Address,
        client: Option<&Client>,
    ) -> Result<Stay, Stop> {
        let began = Instant::now();
        let mut timing = Timing::default();
        let placement = route(self.coordinator.as_ref(), &address.sandbox)
            .await
            .map_err(|error| Stop::Answer(Answer::unrouted(&error)))?;
        timing.route = began.elapsed();
        let permit = self
            .permit(request, &address, &placement)
            .await
            .map_err(Stop::Answer)?;
        let began = Instant::now();
        let lease = match admit(self.node.as_ref(), permit, client, self.config.wake_timeout).await
        {
            Ok(lease) => Arc::from(lease),
            Err(error @ AdmitError::HungUp) => {
                drop(error);
                return Err(Stop::HungUp);
            }
            Err(error) => {
                return Err(Answer::not_admitted(&error).map_or(Stop::HungUp, Stop::Answer));
            }
        };
        timing.admit = began.elapsed();
        // The guest agent is always shown the host that was asked for.
        let mask = placement
            .access
            .mask_request_host
            .filter(|_| address.port != Port::AGENT);
        let masked_host = mask.map(|mask| mask.replace("${PORT}", &address.port.to_string()));
        Ok(Stay::new(
            address,
            masked_host,
            lease,
            timing,
            client.cloned(),
        ))
    }

    async fn permit(
        &self,
        request: &RequestHeader,
        address: &Address,
        placement: &Placement,
    ) -> Result<Permit, Answer> {
        let path = request.uri.path();
        let denied = match access::check(address, &placement.access, &request.headers, path) {
            Ok(permit) => return Ok(permit),
            Err(denied) => denied,
        };
        // What a refused caller is told depends on whether the sandbox sleeps. Asking wakes nothing.
        let asleep = match self
            .node
            .info(&address.sandbox)
            .await
            .map(|info| info.state)
        {
            None | Some(SandboxState::Stopping | SandboxState::Stopped(_)) => {
                return Err(Answer::not_found(&address.sandbox));
            }
            Some(SandboxState::Paused)
                if denied != access::Denied::Reserved && !placement.access.auto_resume =>
            {
                return Err(Answer::not_found(&address.sandbox));
            }
            Some(state) => state == SandboxState::Paused,
        };
        Err(Answer::denied(denied, address, asleep, path))
    }
}

// === impl ProxyHttp for Proxy ===

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Visit;

    fn new_ctx(&self) -> Visit {
        Visit::new(Client::current())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<bool> {
        match self
            .receive(session.req_header(), visit.client.as_ref())
            .await
        {
            Ok(purpose) => {
                visit.purpose = purpose;
                Ok(false)
            }
            Err(Stop::Answer(answer)) => {
                answer.send(session).await?;
                Ok(true)
            }
            Err(Stop::HungUp) => {
                Err(Error::explain(ErrorType::ConnectionClosed, "the client hung up").into_down())
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<Box<HttpPeer>> {
        visit.dialling = Some(Instant::now());
        match &visit.purpose {
            Purpose::Sandbox(stay) => {
                let (lease, outcome) = (stay.lease.clone(), stay.outcome.clone());
                Ok(self
                    .upstreams
                    .peer(&stay.address, lease, outcome, Traffic::of(session)))
            }
            Purpose::Api => self.upstreams.api(&self.config.api_socket),
            Purpose::Undecided => Err(Error::explain(
                ErrorType::InternalError,
                "a request for nothing",
            )),
        }
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _fd: RawFd,
        digest: Option<&Digest>,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        if let Purpose::Sandbox(stay) = &mut visit.purpose {
            stay.timing.dial = visit
                .dialling
                .map(|began| began.elapsed())
                .unwrap_or_default();
            stay.connected(Line::of(digest))
                .or_err(ErrorType::ConnectionClosed, "connect into a guest")
                .map_err(up)?;
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        if let Purpose::Sandbox(stay) = &visit.purpose {
            request.remove_header(&access::TRAFFIC_TOKEN);
            if let Some(masked) = &stay.masked_host {
                if let Some(asked) = request.headers.get(header::HOST).cloned() {
                    request.insert_header("x-forwarded-host", asked)?;
                }
                request.insert_header(header::HOST, masked)?;
            }
        }
        Ok(())
    }

    /// Lets the response catch up before more of the request is taken, or what is read ahead would only grow: Pingora
    /// carries as much of the one as of the other.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        if let Purpose::Sandbox(stay) = &visit.purpose {
            for _ in 0..CATCH_UP {
                if stay.ahead() < MUCH_AHEAD {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        let interim = response.status.is_informational()
            && response.status != StatusCode::SWITCHING_PROTOCOLS;
        if let Purpose::Sandbox(stay) = &visit.purpose
            && !interim
        {
            stay.begin_response()
                .or_err(ErrorType::ConnectionClosed, "begin a response")
                .map_err(up)?;
            response.append_header("server-timing", stay.timing.header(stay.lease.wake()))?;
        }
        Ok(())
    }

    /// A request whose bytes may have reached the guest is never sent again.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        _session: &mut Session,
        mut error: Box<Error>,
        _visit: &mut Visit,
        _reused: bool,
    ) -> Box<Error> {
        error.set_retry(false);
        error
    }

    /// The connector has tried as often as it should.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        _visit: &mut Visit,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(false);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        visit: &mut Visit,
    ) -> FailToProxy {
        let nobody = FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
        let stay = match &visit.purpose {
            Purpose::Sandbox(stay) => Some(stay),
            Purpose::Api | Purpose::Undecided => None,
        };
        note(stay, error);
        let final_response = session
            .response_written()
            .is_some_and(|written| !written.status.is_informational());
        let answer = match (error.esource(), &visit.purpose) {
            _ if final_response || session.was_upgraded() => {
                // What was sent so far must not pass for the whole.
                if let Some(client) = &visit.client {
                    client.reset();
                }
                return nobody;
            }
            (ErrorSource::Downstream, _) if is_gone(error) => return nobody,
            (ErrorSource::Downstream, _) => Answer::internal(400),
            (_, Purpose::Sandbox(stay)) => Answer::broken(stay),
            (ErrorSource::Upstream, Purpose::Api) => {
                Answer::api_down(*error.etype() != ErrorType::ConnectError)
            }
            _ => Answer::internal(500),
        };
        let code = answer.status();
        match answer.send(session).await {
            Ok(()) => FailToProxy {
                error_code: code,
                can_reuse_downstream: false,
            },
            Err(error) => {
                note(stay, &error);
                nobody
            }
        }
    }

    async fn logging(&self, _session: &mut Session, _error: Option<&Error>, visit: &mut Visit) {
        visit.leave();
    }

    /// [`crate::error`] says what is worth saying.
    fn suppress_error_log(&self, _session: &Session, _visit: &Visit, _error: &Error) -> bool {
        true
    }
}

/// Bytes of a response read ahead from which on it must catch up.
const MUCH_AHEAD: usize = 256 << 10;
/// Turns it is given for that: as many pieces of it as Pingora queues.
const CATCH_UP: usize = 4;

fn up(error: Box<Error>) -> Box<Error> {
    error.into_up()
}

fn is_gone(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    )
}
