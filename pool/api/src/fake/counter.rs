//! Counters that tests wait on.

use tokio::sync::watch;

/// Counts one caller until dropped.
pub(super) struct Counted<'a>(&'a watch::Sender<u64>);

impl<'a> Counted<'a> {
    pub(super) fn new(counter: &'a watch::Sender<u64>) -> Self {
        counter.send_modify(|count| *count += 1);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Returns once a counter is at `count` or beyond.
pub(super) async fn at_least(counter: &watch::Sender<u64>, count: u64) {
    // The sender lives as long as the host.
    drop(counter.subscribe().wait_for(|now| *now >= count).await);
}

/// Returns once a counter is exactly at `count`.
pub(super) async fn exactly(counter: &watch::Sender<u64>, count: u64) {
    drop(counter.subscribe().wait_for(|now| *now == count).await);
}
