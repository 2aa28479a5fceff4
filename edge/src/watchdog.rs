//! Ends requests whose lease is revoked or whose bodies stall.
//!
//! A sandbox that is being paused or killed revokes its leases. If the response has not started, the watchdog closes the
//! connection into the guest, and the proxy responds with an error. If it has, the watchdog resets the client, because a
//! clean close would look like a complete response.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pool_api::Lease;
use tokio::{task::JoinHandle, time::Instant};

use crate::{client::Client, upstream::UpstreamSocket};

/// Watches one request until it is dropped.
#[derive(Debug)]
pub(crate) struct IdleWatchdog {
    state: Arc<Mutex<StreamState>>,
    task: JoinHandle<()>,
}

/// The progress of a request, shared with the watchdog's task.
#[derive(Debug)]
struct StreamState {
    upstream: Option<Arc<UpstreamSocket>>,
    last_activity: Instant,
    on_end: OnEnd,
    ended: Option<EndCause>,
}

/// The way to end a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnEnd {
    CloseUpstream,
    ResetClient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndCause {
    LeaseRevoked,
    Idle,
}

/// A request that the watchdog has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease was revoked or the request was idle for too long")]
pub(crate) struct Terminated;

impl IdleWatchdog {
    /// Starts to watch a request. A request without a lease is one to the API; its only end is a reset of the client.
    pub(crate) fn spawn(
        lease: Option<Arc<dyn Lease>>,
        client: Option<Client>,
        idle_timeout: Duration,
    ) -> Self {
        let on_end = match lease {
            Some(_) => OnEnd::CloseUpstream,
            None => OnEnd::ResetClient,
        };
        let state = Arc::new(Mutex::new(StreamState {
            upstream: None,
            last_activity: Instant::now(),
            on_end,
            ended: None,
        }));
        let task = tokio::spawn(watch(lease, state.clone(), client, idle_timeout));
        Self { state, task }
    }

    /// Records that bytes of a body passed.
    pub(crate) fn touch(&self) {
        lock(&self.state).last_activity = Instant::now();
    }

    /// Records the connection into the guest.
    pub(crate) fn set_upstream(
        &self,
        upstream: Option<Arc<UpstreamSocket>>,
    ) -> Result<(), Terminated> {
        let mut state = lock(&self.state);
        state.upstream = upstream;
        state.check()
    }

    /// Records that the response is about to start.
    pub(crate) fn start_response(&self) -> Result<(), Terminated> {
        let mut state = lock(&self.state);
        state.check()?;
        state.on_end = OnEnd::ResetClient;
        Ok(())
    }

    /// Fails if the request has ended: the end of the response may be that of its closed connection.
    pub(crate) fn check(&self) -> Result<(), Terminated> {
        lock(&self.state).check()
    }

    /// Returns the number of response bytes that were read ahead.
    pub(crate) fn read_ahead_len(&self) -> usize {
        let state = lock(&self.state);
        let upstream = state.upstream.as_ref();
        upstream.map_or(0, |upstream| upstream.read_ahead_len())
    }

    /// Returns whether the request ended because its lease was revoked.
    pub(crate) fn is_lease_revoked(&self) -> bool {
        lock(&self.state).ended == Some(EndCause::LeaseRevoked)
    }
}

impl Drop for IdleWatchdog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StreamState {
    fn check(&self) -> Result<(), Terminated> {
        match self.ended {
            Some(_) => Err(Terminated),
            None => Ok(()),
        }
    }
}

fn lock(state: &Mutex<StreamState>) -> MutexGuard<'_, StreamState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(
    lease: Option<Arc<dyn Lease>>,
    state: Arc<Mutex<StreamState>>,
    client: Option<Client>,
    idle_timeout: Duration,
) {
    let revoked = async {
        match &lease {
            Some(lease) => lease.revoked().await,
            None => std::future::pending().await,
        }
    };
    let cause = tokio::select! {
        () = revoked => EndCause::LeaseRevoked,
        () = idle(&state, idle_timeout) => EndCause::Idle,
    };
    let mut state = lock(&state);
    state.ended = Some(cause);
    // The reset precedes the close, which must not pass for the end of the response.
    if state.on_end == OnEnd::ResetClient
        && let Some(client) = client
    {
        client.reset();
    }
    if let Some(upstream) = state.upstream.take() {
        upstream.shutdown();
    }
}

/// Completes once no byte of a body has passed for `timeout`.
async fn idle(state: &Mutex<StreamState>, timeout: Duration) {
    loop {
        let deadline = lock(state).last_activity + timeout;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}
