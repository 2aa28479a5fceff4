//! What guests say of themselves, asked now and then and remembered for an hour.
//!
//! A guest is asked right after it starts, then in rounds, a few at a time. A round begins no sooner than
//! [`SHORTEST_ROUND`] after the one before, and later when asking was expensive, so that hundreds of guests cost little.

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

/// The time between two rounds at least, and the age a figure may have when somebody asks.
const SHORTEST_ROUND: Duration = Duration::from_secs(5);
/// How much longer than it took to ask everybody is waited until the next round.
const REST: u32 = 20;
/// Guests that are asked at a time.
const AT_ONCE: usize = 4;
/// Guests that have just started and wait to be asked. The others of a crowd are asked by a round, or when somebody
/// wants to know: they have better things to do now.
const CROWD: usize = 8;
/// How long a guest may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take when somebody waits for that.
const SHORT_PATIENCE: Duration = Duration::from_secs(4);

/// What guests said.
#[derive(Debug)]
pub(crate) struct Samples {
    node: Arc<dyn Node>,
    histories: Mutex<HashMap<SandboxId, History>>,
}

// === impl Samples ===

impl Samples {
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

    /// Whether a guest answers.
    pub(crate) async fn answers(&self, id: &SandboxId) -> bool {
        let asked = tokio::time::timeout(PATIENCE, self.node.metrics(id)).await;
        asked.is_ok_and(|sample| sample.is_some())
    }

    /// Asks a guest, and remembers what it says. Says how long that took.
    async fn ask(&self, id: SandboxId, patience: Duration) -> Duration {
        let begun = Instant::now();
        if let Ok(Some(sample)) = tokio::time::timeout(patience, self.node.metrics(&id)).await {
            self.histories().entry(id).or_default().add(sample);
        }
        begun.elapsed()
    }

    /// What a guest said from `from` to `to`; asks it first when it runs, `to` is not past, and what it said last is old.
    pub(crate) async fn of(&self, id: &SandboxId, from: Micros, to: Micros) -> Vec<GuestMetrics> {
        let now = Micros::now();
        let fresh = now.before(SHORTEST_ROUND);
        let old = self
            .latest(id)
            .is_none_or(|sample| Micros::from(sample.at) < fresh);
        let runs = |state| matches!(state, SandboxState::Running);
        if old
            && to >= now
            && self
                .node
                .info(id)
                .await
                .is_some_and(|info| runs(info.state))
        {
            self.ask(id.clone(), SHORT_PATIENCE).await;
        }
        let histories = self.histories();
        histories
            .get(id)
            .map(|history| history.between(from, to))
            .unwrap_or_default()
    }

    /// What a guest said last.
    pub(crate) fn latest(&self, id: &SandboxId) -> Option<GuestMetrics> {
        self.histories().get(id).and_then(History::latest)
    }

    /// Forgets what is known of a sandbox that is gone.
    pub(crate) fn forget(&self, id: &SandboxId) {
        self.histories().remove(id);
    }

    /// The running guests. What is known of sandboxes that are gone is forgotten.
    async fn running(&self) -> VecDeque<SandboxId> {
        let list = self.node.list().await;
        let mut known: HashMap<SandboxId, SandboxState> =
            list.into_iter().map(|info| (info.id, info.state)).collect();
        self.histories().retain(|id, _| known.contains_key(id));
        known.retain(|_, state| *state == SandboxState::Running);
        known.into_keys().collect()
    }
}

/// Asks for ever.
pub(crate) async fn run(samples: &Samples, mut events: broadcast::Receiver<Event>) {
    let mut queue = VecDeque::new();
    let mut asking = FuturesUnordered::new();
    // The first round begins at once.
    let (mut round, mut spent) = (None::<Instant>, Duration::ZERO);
    loop {
        while asking.len() < AT_ONCE
            && let Some(id) = queue.pop_front()
        {
            asking.push(samples.ask(id, PATIENCE));
        }
        let idle = asking.is_empty();
        let rest = SHORTEST_ROUND.max(spent * REST);
        let next = round.map_or_else(Instant::now, |begun| begun + rest);
        tokio::select! {
            event = events.recv() => match event {
                Ok(Event { id, kind: EventKind::Started { .. }, .. }) if queue.len() < CROWD => {
                    queue.push_front(id);
                }
                // A round finds what was missed.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            Some(took) = asking.next(), if !idle => spent += took,
            () = tokio::time::sleep_until(next), if idle => {
                queue = samples.running().await;
                (round, spent) = (Some(Instant::now()), Duration::ZERO);
            }
        }
    }
}

#[cfg(test)]
mod tests;
