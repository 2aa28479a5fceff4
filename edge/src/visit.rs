//! What is held while a request passes.
//!
//! A visit to a sandbox keeps the lease until the last byte is through, and a watcher beside it. When the lease is
//! revoked (the sandbox is being paused or killed), a visit that has not been answered yet loses its line into the guest
//! and is answered with an error; one whose response has begun is reset, for a clean end would be taken for the whole.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pool_api::{DialError, Lease};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    client::Client,
    crowd::Seat,
    guise::Guise,
    host::Address,
    metrics::{Class, Tally, Way},
    timing::Timing,
    upstream::{DialOutcome, Line},
};

/// The context of one request.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The client.
    pub(crate) client: Option<Client>,
    /// What is counted of it.
    pub(crate) tally: Tally,
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
    Api(Vigil),
    /// A sandbox it was let into.
    Sandbox(Box<Stay>),
}

/// A request inside a sandbox.
#[derive(Debug)]
pub(crate) struct Stay {
    /// Which port of which sandbox.
    pub(crate) address: Address,
    /// How the guest is shown the request.
    pub(crate) guise: Guise,
    /// The right to be there.
    pub(crate) lease: Arc<dyn Lease>,
    /// The place among the requests that are there.
    _seat: Seat,
    /// What it cost so far.
    pub(crate) timing: Timing,
    /// Why there is no connection to the port.
    pub(crate) outcome: DialOutcome,
    passage: Arc<Mutex<Passage>>,
    watcher: JoinHandle<()>,
}

/// Watches a request to the API, which is reset once nothing has passed for long.
#[derive(Debug)]
pub(crate) struct Vigil {
    moved: Arc<Mutex<Instant>>,
    watcher: JoinHandle<()>,
}

/// How far a request is, shared with the watcher.
#[derive(Debug)]
struct Passage {
    line: Option<Arc<Line>>,
    response_begun: bool,
    /// The lease was revoked.
    revoked: bool,
    /// It was, or nothing passed for too long.
    over: bool,
    /// When a byte of a body last passed.
    moved: Instant,
}

/// The visit has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease was revoked, or nothing passed for too long")]
pub(crate) struct Over;

impl Visit {
    pub(crate) fn new(client: Option<Client>, tally: Tally) -> Self {
        Self {
            client,
            tally,
            purpose: Purpose::Undecided,
            dialling: None,
        }
    }

    /// A piece of a body passes.
    pub(crate) fn carried(&self, way: Way, piece: Option<&Bytes>) {
        let Some(piece) = piece.filter(|piece| !piece.is_empty()) else {
            return;
        };
        self.tally.carried(way, piece.len());
        match &self.purpose {
            Purpose::Sandbox(stay) => stay.moved(),
            Purpose::Api(vigil) => *lock(&vigil.moved) = Instant::now(),
            Purpose::Undecided => {}
        }
    }

    /// Gives up what is held.
    pub(crate) fn leave(&mut self) {
        self.purpose = Purpose::Undecided;
    }
}

impl Purpose {
    /// As it is counted.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Undecided => Class::None,
            Self::Api(_) => Class::Api,
            Self::Sandbox(_) => Class::Sandbox,
        }
    }
}

impl Stay {
    /// Begins to watch the lease. Nothing may pass for `idle` at most.
    pub(crate) fn new(
        address: Address,
        guise: Guise,
        lease: Arc<dyn Lease>,
        seat: Seat,
        timing: Timing,
        client: Option<Client>,
        idle: Duration,
    ) -> Self {
        let passage = Arc::new(Mutex::new(Passage {
            line: None,
            response_begun: false,
            revoked: false,
            over: false,
            moved: Instant::now(),
        }));
        let watcher = tokio::spawn(watch(lease.clone(), passage.clone(), client, idle));
        Self {
            address,
            guise,
            lease,
            _seat: seat,
            timing,
            outcome: DialOutcome::default(),
            passage,
            watcher,
        }
    }

    /// Bytes of a body passed.
    pub(crate) fn moved(&self) {
        lock(&self.passage).moved = Instant::now();
    }

    /// There is a line into the guest.
    pub(crate) fn connected(&self, line: Option<Arc<Line>>) -> Result<(), Over> {
        let mut passage = lock(&self.passage);
        passage.line = line;
        if passage.over { Err(Over) } else { Ok(()) }
    }

    /// The response is about to be passed on.
    pub(crate) fn begin_response(&self) -> Result<(), Over> {
        let mut passage = lock(&self.passage);
        if passage.over {
            return Err(Over);
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

    /// The response is about to end. It may only have been cut.
    pub(crate) fn end_response(&self) -> Result<(), Over> {
        if lock(&self.passage).over {
            Err(Over)
        } else {
            Ok(())
        }
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

impl Vigil {
    pub(crate) fn new(client: Option<Client>, idle: Duration) -> Self {
        let moved = Arc::new(Mutex::new(Instant::now()));
        let shared = moved.clone();
        let watcher = tokio::spawn(async move {
            idle_for(|| *lock(&shared), idle).await;
            if let Some(client) = client {
                client.reset();
            }
        });
        Self { moved, watcher }
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(
    lease: Arc<dyn Lease>,
    passage: Arc<Mutex<Passage>>,
    client: Option<Client>,
    idle: Duration,
) {
    let revoked = tokio::select! {
        () = lease.revoked() => true,
        () = idle_for(|| lock(&passage).moved, idle) => false,
    };
    let mut passage = lock(&passage);
    (passage.revoked, passage.over) = (revoked, true);
    // Before the line is cut: its end must not pass for the response's.
    if passage.response_begun
        && let Some(client) = client
    {
        client.reset();
    }
    if let Some(line) = passage.line.take() {
        line.cut();
    }
}

/// Returns once nothing has passed for so long. `moved` says when something last did.
async fn idle_for(moved: impl Fn() -> Instant, idle: Duration) {
    loop {
        let until = moved() + idle;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}
