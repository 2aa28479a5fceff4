//! Polls guests for metrics and stores one hour of samples in memory.
//!
//! The poller polls a guest right after its first start, then all guests in rounds, with bounded concurrency. Rounds are at
//! least [`MIN_INTERVAL`] apart, and further apart when polling is slow, so that the cost stays low with many guests. A
//! wake is not followed by a poll: it would cost the guest as much as the request that woke it.

mod history;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use pool_api::{Event, EventKind, GuestMetrics, Node, SandboxId, SandboxState};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};

use self::history::History;
use crate::time::Micros;

/// The minimum time between two rounds, and the age up to which a sample is current.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// The interval between rounds is at least this many times the time that polling took.
const DUTY_CYCLE: u32 = 20;
/// Maximum concurrent polls.
const MAX_CONCURRENT: usize = 4;
/// Maximum started guests queued for their first poll. The next round polls the others, so that a burst of starts does
/// not compete with its own polls.
const MAX_PENDING: usize = 8;
/// Timeout of a poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a poll that a request waits for.
const REQUEST_POLL_TIMEOUT: Duration = Duration::from_secs(4);

/// Polls guests and stores their samples.
#[derive(Debug)]
pub(crate) struct MetricsPoller {
    node: Arc<dyn Node>,
    histories: Mutex<HashMap<SandboxId, History>>,
}

// === impl MetricsPoller ===

impl MetricsPoller {
    /// Creates a poller without samples.
    pub(crate) fn new(node: Arc<dyn Node>) -> Self {
        Self {
            node,
            histories: Mutex::default(),
        }
    }

    fn histories(&self) -> MutexGuard<'_, HashMap<SandboxId, History>> {
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a guest answers a poll.
    pub(crate) async fn is_responsive(&self, id: &SandboxId) -> bool {
        let polled = tokio::time::timeout(POLL_TIMEOUT, self.node.metrics(id)).await;
        polled.is_ok_and(|sample| sample.is_some())
    }

    /// Polls a guest and stores the sample. Returns the time that took.
    async fn poll(&self, id: SandboxId, timeout: Duration) -> Duration {
        let start = Instant::now();
        if let Ok(Some(sample)) = tokio::time::timeout(timeout, self.node.metrics(&id)).await {
            self.histories().entry(id).or_default().push(sample);
        }
        start.elapsed()
    }

    /// The samples between two instants. Polls a running guest first if its latest sample is not current and the range
    /// includes the present.
    pub(crate) async fn range(
        &self,
        id: &SandboxId,
        from: Micros,
        to: Micros,
    ) -> Vec<GuestMetrics> {
        let now = Micros::now();
        let stale = self
            .latest(id)
            .is_none_or(|sample| Micros::from(sample.at) < now.before(MIN_INTERVAL));
        if stale && to >= now && self.is_running(id).await {
            self.poll(id.clone(), REQUEST_POLL_TIMEOUT).await;
        }
        let histories = self.histories();
        histories
            .get(id)
            .map(|history| history.range(from, to))
            .unwrap_or_default()
    }

    async fn is_running(&self, id: &SandboxId) -> bool {
        let info = self.node.info(id).await;
        info.is_some_and(|info| info.state == SandboxState::Running)
    }

    /// The latest sample of a guest.
    pub(crate) fn latest(&self, id: &SandboxId) -> Option<GuestMetrics> {
        self.histories().get(id).and_then(History::latest)
    }

    /// Removes the samples of a sandbox.
    pub(crate) fn remove(&self, id: &SandboxId) {
        self.histories().remove(id);
    }

    /// Lists the running sandboxes. Removes the samples of sandboxes that no longer exist.
    async fn running(&self) -> VecDeque<SandboxId> {
        let list = self.node.list().await;
        let mut states: HashMap<SandboxId, SandboxState> =
            list.into_iter().map(|info| (info.id, info.state)).collect();
        self.histories().retain(|id, _| states.contains_key(id));
        states.retain(|_, state| *state == SandboxState::Running);
        states.into_keys().collect()
    }

    /// Polls until the host closes its events.
    pub(crate) async fn run(&self, mut events: broadcast::Receiver<Event>) {
        let mut queue = VecDeque::new();
        let mut polls = FuturesUnordered::new();
        // The first round starts at once.
        let (mut round, mut spent) = (None::<Instant>, Duration::ZERO);
        loop {
            while polls.len() < MAX_CONCURRENT
                && let Some(id) = queue.pop_front()
            {
                polls.push(self.poll(id, POLL_TIMEOUT));
            }
            let idle = polls.is_empty();
            let interval = MIN_INTERVAL.max(spent * DUTY_CYCLE);
            let next = round.map_or_else(Instant::now, |start| start + interval);
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event { id, kind: EventKind::Started { .. }, .. })
                        if queue.len() < MAX_PENDING && self.latest(&id).is_none() =>
                    {
                        queue.push_front(id);
                    }
                    // The next round covers missed events.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                Some(took) = polls.next(), if !idle => spent += took,
                () = tokio::time::sleep_until(next), if idle => {
                    queue = self.running().await;
                    (round, spent) = (Some(Instant::now()), Duration::ZERO);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
