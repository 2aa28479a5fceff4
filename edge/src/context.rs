//! The state of one request until its end.

use bytes::Bytes;
use pool_api::{DialError, SandboxId};
use tokio::time::Instant;

use crate::{
    budget::{ApiShare, RequestShare},
    client::Client,
    limiter::Slot,
    metrics::{Direction, RequestGuard, TargetLabel},
    rewrite::Rewrite,
    timing::Timing,
    upstream::PeerSpec,
    watchdog::IdleWatchdog,
};

/// Pingora's `CTX`.
#[derive(Debug)]
pub(crate) struct RequestContext {
    /// The client.
    pub(crate) client: Option<Client>,
    /// The metrics of the request.
    pub(crate) guard: RequestGuard,
    /// The resolved request.
    pub(crate) kind: RequestKind,
    /// The start of the connection attempt to the upstream.
    pub(crate) dial_started: Option<Instant>,
    /// The request was sent again after its reused connection had closed.
    pub(crate) retried: bool,
    /// The share of the budget, until the response is written.
    pub(crate) share: Option<RequestShare>,
}

/// A request, by its destination.
#[derive(Debug)]
pub(crate) enum RequestKind {
    /// The destination is not resolved, or the request has ended.
    Unresolved,
    /// A request to the API.
    Api(ApiRequest),
    /// A request to a sandbox that granted a lease.
    Sandbox(Box<SandboxRequest>),
}

/// A request to the API.
#[derive(Debug)]
pub(crate) struct ApiRequest {
    /// Ends the request when its bodies stall.
    pub(crate) watchdog: IdleWatchdog,
    /// Counts towards the limit of the API.
    pub(crate) _share: ApiShare,
}

/// A request that holds a lease of its sandbox.
#[derive(Debug)]
pub(crate) struct SandboxRequest {
    /// The upstream.
    pub(crate) peer: PeerSpec,
    /// The rewrite of the request and its response.
    pub(crate) rewrite: Rewrite,
    /// The durations of the steps so far.
    pub(crate) timing: Timing,
    /// Ends the request when its lease is revoked or its bodies stall.
    pub(crate) watchdog: IdleWatchdog,
    /// Counts towards the concurrency limit of the sandbox.
    pub(crate) _slot: Slot<SandboxId>,
}

impl RequestContext {
    pub(crate) fn new(client: Option<Client>, guard: RequestGuard) -> Self {
        Self {
            client,
            guard,
            kind: RequestKind::Unresolved,
            dial_started: None,
            retried: false,
            share: None,
        }
    }

    /// Counts a chunk of a body.
    pub(crate) fn body_chunk(&self, direction: Direction, chunk: Option<&Bytes>) {
        let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else {
            return;
        };
        self.guard.body_bytes(direction, chunk.len());
        match &self.kind {
            RequestKind::Sandbox(request) => request.watchdog.touch(),
            RequestKind::Api(request) => request.watchdog.touch(),
            RequestKind::Unresolved => {}
        }
    }

    /// Returns the request to a sandbox, if it is one.
    pub(crate) fn sandbox(&self) -> Option<&SandboxRequest> {
        match &self.kind {
            RequestKind::Sandbox(request) => Some(request),
            RequestKind::Api(_) | RequestKind::Unresolved => None,
        }
    }

    /// Step 9 of a request: releases its lease, its slot and its watchdog.
    pub(crate) fn finish(&mut self) {
        self.kind = RequestKind::Unresolved;
        self.share = None;
    }
}

impl RequestKind {
    /// Returns the label of the request's destination in the metrics.
    pub(crate) fn label(&self) -> TargetLabel {
        match self {
            Self::Unresolved => TargetLabel::None,
            Self::Api(_) => TargetLabel::Api,
            Self::Sandbox(_) => TargetLabel::Sandbox,
        }
    }
}

impl SandboxRequest {
    /// Returns whether the lease was revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        self.watchdog.is_lease_revoked()
            || matches!(self.peer.dial_error.get(), Some(DialError::Gone))
    }
}
