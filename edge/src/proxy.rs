//! Pingora's phases. Each calls the module that implements the step.

mod log;

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
    context::{RequestContext, RequestKind},
    dispatch::Dispatcher,
    framing,
    metrics::{Direction, Metrics},
    response::{ApiFailure, ErrorResponse},
    upstream::{StreamMode, UpstreamSocket, Upstreams},
};

/// Read-ahead from which on the response must catch up, in bytes.
const READ_AHEAD_HIGH: usize = 64 << 10;
/// Yields to the response for each chunk of the request: the length of Pingora's queue between the two.
const CATCH_UP_YIELDS: usize = 4;

/// The proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    api_socket: PathBuf,
    api_key: Option<Secret>,
    dispatcher: Dispatcher,
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
            dispatcher: Dispatcher::new(config, node, coordinator),
            metrics,
        }
    }

    async fn respond(&self, session: &mut Session, response: ErrorResponse) -> pingora::Result<()> {
        self.metrics.request_refused(response.reason());
        response.send(session).await
    }
}

// === impl ProxyHttp for Proxy ===

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        let client = Client::current();
        if let Some(client) = &client {
            client.head_complete();
        }
        RequestContext::new(client, self.metrics.request())
    }

    /// Steps 1 to 4.
    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
    ) -> pingora::Result<bool> {
        let rejection = match self.dispatcher.dispatch(session, context).await {
            Ok(kind) => {
                context.guard.set_target(kind.label());
                context.kind = kind;
                return Ok(false);
            }
            Err(rejection) => rejection,
        };
        log::rejected(&rejection);
        let Some(response) = ErrorResponse::rejected(&rejection) else {
            let error = Error::explain(ErrorType::ConnectionClosed, "the client disconnected");
            return Err(error.into_down());
        };
        self.respond(session, response).await?;
        Ok(true)
    }

    /// Step 8.
    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
    ) -> pingora::Result<Box<HttpPeer>> {
        context.dial_started = Some(Instant::now());
        match &context.kind {
            RequestKind::Sandbox(request) => {
                let mode = StreamMode::of(session);
                Ok(self.upstreams.sandbox(&request.peer, mode))
            }
            RequestKind::Api(_) => self.upstreams.api(&self.api_socket),
            RequestKind::Unresolved => Err(Error::explain(
                ErrorType::InternalError,
                "the request has no destination",
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
        context: &mut RequestContext,
    ) -> pingora::Result<()> {
        if let RequestKind::Sandbox(request) = &mut context.kind {
            let started = context.dial_started;
            request.timing.dial = started.map(|at| at.elapsed()).unwrap_or_default();
            request
                .watchdog
                .set_upstream(UpstreamSocket::of(digest))
                .or_err(ErrorType::ConnectionClosed, "connect to the guest")
                .map_err(Error::into_up)?;
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut RequestContext,
    ) -> pingora::Result<()> {
        match context.sandbox() {
            Some(sandbox) => sandbox
                .rewrite
                .rewrite_request(request, self.api_key.as_ref()),
            None => Ok(()),
        }
    }

    /// Lets the response catch up before it forwards more of the request: Pingora alternates between the two, so that the
    /// read-ahead would only grow.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut RequestContext,
    ) -> pingora::Result<()> {
        // HTTP/2 bodies often end with an empty DATA frame. Pingora would write it as the last chunk and then end the body
        // with another last chunk, which the guest would read as the start of the next request.
        if body.as_ref().is_some_and(Bytes::is_empty) && end {
            *body = None;
        }
        context.body_chunk(Direction::In, body.as_ref());
        if let Some(request) = context.sandbox() {
            for _ in 0..CATCH_UP_YIELDS {
                if request.watchdog.read_ahead_len() < READ_AHEAD_HIGH {
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
        context: &mut RequestContext,
    ) -> pingora::Result<()> {
        let Some(request) = context.sandbox() else {
            return Ok(());
        };
        framing::normalize_response(response, session.is_upgrade_req())
            .or_err(ErrorType::InvalidHTTPHeader, "read the response")
            .map_err(Error::into_up)?;
        if is_interim(response) {
            return Ok(());
        }
        request
            .watchdog
            .start_response()
            .or_err(ErrorType::ConnectionClosed, "start the response")
            .map_err(Error::into_up)?;
        self.metrics.observe_stages(&request.timing);
        request
            .rewrite
            .rewrite_response(session.req_header(), response)?;
        let timing = request.timing.header(request.peer.lease.wake());
        response.append_header("server-timing", timing)?;
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut RequestContext,
    ) -> pingora::Result<Option<Duration>> {
        context.body_chunk(Direction::Out, body.as_ref());
        if let Some(request) = context.sandbox()
            && end
        {
            request
                .watchdog
                .check()
                .or_err(ErrorType::ConnectionClosed, "end the response")
                .map_err(Error::into_up)?;
        }
        Ok(None)
    }

    /// Forbids retries: the guest may have received bytes of the request. The exception is a safe request without a body
    /// on a reused connection: a guest that closes an idle connection may do so while the request is on its way.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        let retry = reused
            && !context.retried
            && *error.esource() == ErrorSource::Upstream
            && session.response_written().is_none()
            && session.req_header().method.is_safe()
            && session.is_body_empty()
            && is_closed(&error);
        context.retried |= retry;
        error.set_retry(retry);
        error
    }

    /// Forbids retries: the dialer has retried already.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        _context: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(false);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut RequestContext,
    ) -> FailToProxy {
        log::proxy_failed(context.sandbox(), error);
        // The connection is closed after the response.
        session.set_keepalive(None);
        let status = match failure_response(session, error, context) {
            Some(response) => {
                let status = response.status();
                match self.respond(session, response).await {
                    Ok(()) => status,
                    Err(error) => {
                        log::response_failed(context.sandbox(), &error);
                        0
                    }
                }
            }
            None => 0,
        };
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    /// Step 9.
    async fn logging(
        &self,
        session: &mut Session,
        _error: Option<&Error>,
        context: &mut RequestContext,
    ) {
        let written = session.response_written();
        let status = written.map(|written| written.status.as_u16());
        context.guard.set_status(status);
        context.finish();
    }

    /// Disables Pingora's own log: [`log`] has the events.
    fn suppress_error_log(
        &self,
        _session: &Session,
        _context: &RequestContext,
        _error: &Error,
    ) -> bool {
        true
    }
}

/// Builds the response to a failed request. `None`: the client has disconnected, or has received the start of a response; then it
/// is reset, so that it does not take the part for the whole.
fn failure_response(
    session: &mut Session,
    error: &Error,
    context: &RequestContext,
) -> Option<ErrorResponse> {
    let source = error.esource();
    let response_started = session
        .response_written()
        .is_some_and(|written| !written.status.is_informational());
    if response_started || session.was_upgraded() {
        if let Some(client) = &context.client {
            client.reset();
            if *source == ErrorSource::Downstream {
                client.mark_cancelled();
            }
        }
        session
            .as_downstream_mut()
            .shutdown_with_reason(Reason::INTERNAL_ERROR);
        return None;
    }
    Some(match (source, &context.kind) {
        (ErrorSource::Downstream, _) if is_disconnect(error) => {
            if let Some(client) = &context.client {
                client.mark_cancelled();
            }
            return None;
        }
        (ErrorSource::Downstream, _) => ErrorResponse::not_forwarded(400),
        (_, RequestKind::Sandbox(request)) => {
            ErrorResponse::upstream_failed(request, is_malformed(error))
        }
        (ErrorSource::Upstream, RequestKind::Api(_)) => {
            ErrorResponse::api_failed(match error.etype() {
                ErrorType::ConnectError => ApiFailure::Unreachable,
                _ => ApiFailure::Disconnected,
            })
        }
        _ => ErrorResponse::not_forwarded(500),
    })
}

fn is_interim(response: &ResponseHeader) -> bool {
    response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
}

/// Returns whether the guest answered with something that is not a usable HTTP response.
fn is_malformed(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::InvalidHTTPHeader | ErrorType::UnknownError
    )
}

/// Returns whether a connection ended before it carried a response.
fn is_closed(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    )
}

fn is_disconnect(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed
            | ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::H2Error
    )
}
