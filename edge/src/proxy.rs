//! Pingora's phases, and nothing else: each calls the module that does the step.

use std::{os::fd::RawFd, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use coordinator::Coordinator;
use h2::Reason;
use http::StatusCode;
use pingora::{
    Error, ErrorSource, ErrorType, OrErr,
    http::{RequestHeader, ResponseHeader},
    protocols::Digest,
    proxy::{FailToProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};
use pool_api::{Node, Secret};
use tokio::time::Instant;

use crate::{
    client::Client,
    config::Config,
    error::{Answer, note},
    metrics::{Metrics, Way},
    reception::{Reception, Stop},
    upstream::{Line, Traffic, Upstreams},
    visit::{Purpose, Visit},
};

/// The proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    api_socket: PathBuf,
    api_key: Option<Secret>,
    reception: Reception,
    upstreams: Upstreams,
    metrics: Arc<Metrics>,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn new(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            api_socket: config.api_socket.clone(),
            api_key: config.api_key.clone(),
            upstreams: Upstreams::new(&config),
            reception: Reception::new(config, node, coordinator, metrics.clone()),
            metrics,
        }
    }

    async fn answer(&self, session: &mut Session, answer: Answer) -> pingora::Result<()> {
        self.metrics.refused(answer.reason());
        answer.send(session).await
    }
}

// === impl ProxyHttp for Proxy ===

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Visit;

    fn new_ctx(&self) -> Visit {
        let client = Client::current();
        if let Some(client) = &client {
            client.head_in_hand();
        }
        Visit::new(client, self.metrics.tally())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<bool> {
        let client = visit.client.clone();
        match self.reception.receive(session, client.as_ref()).await {
            Ok(purpose) => {
                visit.tally.aim(purpose.class());
                visit.purpose = purpose;
                Ok(false)
            }
            Err(Stop::Answer(answer)) => {
                self.answer(session, answer).await?;
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
            Purpose::Sandbox(stay) => Ok(self.upstreams.peer(stay, Traffic::of(session))),
            Purpose::Api(_) => self.upstreams.api(&self.api_socket),
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
            stay.guise.put_on(request, self.api_key.as_ref())?;
        }
        Ok(())
    }

    /// Lets the response catch up before more of the request is taken, or what is read ahead would only grow: Pingora
    /// carries as much of the one as of the other.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        // HTTP/2 bodies often end in an empty frame. Pingora would write it as the last chunk, and then the last chunk:
        // the second one would be read as the beginning of the connection's next request.
        if body.as_ref().is_some_and(Bytes::is_empty) && end {
            *body = None;
        }
        visit.carried(Way::In, body.as_ref());
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
        session: &mut Session,
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
            self.metrics.reached(&stay.timing);
            stay.guise.take_off(session.req_header(), response)?;
            response.append_header("server-timing", stay.timing.header(stay.lease.wake()))?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        visit: &mut Visit,
    ) -> pingora::Result<Option<Duration>> {
        visit.carried(Way::Out, body.as_ref());
        if let Purpose::Sandbox(stay) = &visit.purpose
            && end
        {
            stay.end_response()
                .or_err(ErrorType::ConnectionClosed, "end a response")
                .map_err(up)?;
        }
        Ok(None)
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
            Purpose::Sandbox(stay) => Some(stay.as_ref()),
            Purpose::Api(_) | Purpose::Undecided => None,
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
                    note_gone(client, error);
                }
                session
                    .as_downstream_mut()
                    .shutdown_with_reason(Reason::INTERNAL_ERROR);
                return nobody;
            }
            (ErrorSource::Downstream, _) if is_gone(error) => {
                if let Some(client) = &visit.client {
                    note_gone(client, error);
                }
                return nobody;
            }
            (ErrorSource::Downstream, _) => Answer::internal(400),
            (_, Purpose::Sandbox(stay)) => Answer::broken(stay),
            (ErrorSource::Upstream, Purpose::Api(_)) => {
                Answer::api_down(*error.etype() != ErrorType::ConnectError)
            }
            _ => Answer::internal(500),
        };
        let code = answer.status();
        match self.answer(session, answer).await {
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

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, visit: &mut Visit) {
        let written = session.response_written();
        visit
            .tally
            .answered(written.map(|written| written.status.as_u16()));
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

fn note_gone(client: &Client, error: &Error) {
    if *error.esource() == ErrorSource::Downstream {
        client.note_cancelled();
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed
            | ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::H2Error
    )
}
