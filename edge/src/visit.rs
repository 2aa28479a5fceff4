//! What is held while a request passes.
//!
//! A visit to a sandbox keeps the lease until the last byte is through, and a watcher beside it. When the lease is
//! revoked (the sandbox is being paused or killed), a visit that has not been answered yet loses its line into the guest
//! and is answered with an error; one whose response has begun is reset, for a clean end would be taken for the whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pool_api::{DialError, Lease};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    client::Client,
    host::Address,
    timing::Timing,
    upstream::{DialOutcome, Line},
};

/// The context of one request.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The client, unless the transport has many requests on one connection.
    pub(crate) client: Option<Client>,
    /// What the request is for, once that is known.
    pub(crate) purpose: Purpose,
    /// When dialling began.
    pub(crate) dialling: Option<Instant>,
}

/// What a request is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// Not known yet.
    Undecided,
    /// The API.
    Api,
    /// A sandbox it was let into.
    Sandbox(Stay),
}

/// A request inside a sandbox.
#[derive(Debug)]
pub(crate) struct Stay {
    /// Which port of which sandbox.
    pub(crate) address: Address,
    /// The host to show the guest; `None`: the one that was asked for.
    pub(crate) masked_host: Option<String>,
    /// The right to be there.
    pub(crate) lease: Arc<dyn Lease>,
    /// What it cost so far.
    pub(crate) timing: Timing,
    /// Why there is no connection to the port.
    pub(crate) outcome: DialOutcome,
    passage: Arc<Mutex<Passage>>,
    watcher: JoinHandle<()>,
}

/// How far a request is, shared with the watcher.
#[derive(Debug, Default)]
struct Passage {
    line: Option<Arc<Line>>,
    response_begun: bool,
    revoked: bool,
}

/// The lease was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease was revoked")]
pub(crate) struct Revoked;

impl Visit {
    pub(crate) fn new(client: Option<Client>) -> Self {
        Self {
            client,
            purpose: Purpose::Undecided,
            dialling: None,
        }
    }

    /// Gives up what is held.
    pub(crate) fn leave(&mut self) {
        self.purpose = Purpose::Undecided;
    }
}

impl Stay {
    /// Begins to watch the lease.
    pub(crate) fn new(
        address: Address,
        masked_host: Option<String>,
        lease: Arc<dyn Lease>,
        timing: Timing,
        client: Option<Client>,
    ) -> Self {
        let passage: Arc<Mutex<Passage>> = Arc::default();
        let watcher = tokio::spawn(watch(lease.clone(), passage.clone(), client));
        Self {
            address,
            masked_host,
            lease,
            timing,
            outcome: DialOutcome::default(),
            passage,
            watcher,
        }
    }

    /// There is a line into the guest.
    pub(crate) fn connected(&self, line: Option<Arc<Line>>) -> Result<(), Revoked> {
        let mut passage = lock(&self.passage);
        passage.line = line;
        if passage.revoked {
            Err(Revoked)
        } else {
            Ok(())
        }
    }

    /// The response is about to be passed on.
    pub(crate) fn begin_response(&self) -> Result<(), Revoked> {
        let mut passage = lock(&self.passage);
        if passage.revoked {
            return Err(Revoked);
        }
        passage.response_begun = true;
        Ok(())
    }

    /// Bytes of the response that were read ahead and not taken yet.
    pub(crate) fn ahead(&self) -> usize {
        lock(&self.passage)
            .line
            .as_ref()
            .map_or(0, |line| line.ahead())
    }

    /// Whether the lease was revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        lock(&self.passage).revoked || matches!(self.outcome.get(), Some(DialError::Gone))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

fn lock(passage: &Mutex<Passage>) -> MutexGuard<'_, Passage> {
    passage.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(lease: Arc<dyn Lease>, passage: Arc<Mutex<Passage>>, client: Option<Client>) {
    lease.revoked().await;
    let mut passage = lock(&passage);
    passage.revoked = true;
    if passage.response_begun
        && let Some(client) = client
    {
        client.reset();
    }
    if let Some(line) = passage.line.take() {
        line.cut();
    }
}
