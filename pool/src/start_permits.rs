//! The bound on starts under way. A start holds its permit until its guest has answered the first requests.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::gate::Gate;

/// The time after which a start counts as slow.
const SLOW: Duration = Duration::from_secs(2);
/// The time after which a slow start no longer counts: it hangs.
const HUNG: Duration = Duration::from_secs(10);
/// The bound on the time that the first requests count towards a start, as a multiple of the guest init's time: a guest
/// kernel that is slow on this host is as slow for the first request.
const FIRST_REQUESTS: u32 = 3;

/// The permits of this host.
#[derive(Debug)]
pub(crate) struct StartPermits {
    usual: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

/// The permit of one start, returned when dropped.
#[derive(Debug)]
pub(crate) struct StartPermit {
    held: Option<OwnedSemaphorePermit>,
    slow: Arc<Semaphore>,
}

impl StartPermits {
    pub(crate) fn new(concurrent: usize, slow: usize) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            usual: semaphore(concurrent),
            slow: semaphore(slow),
        }
    }

    /// Waits for a permit, in order of arrival.
    pub(crate) async fn acquire(&self) -> StartPermit {
        StartPermit {
            // The semaphore is never closed.
            held: Arc::clone(&self.usual).acquire_owned().await.ok(),
            slow: Arc::clone(&self.slow),
        }
    }
}

impl StartPermit {
    /// Exchanges the permit for that of a slow start once the start is slow and one is free, and returns that after a bounded
    /// time: a guest that does not answer must not keep others from starting, and not all guests may start at once.
    pub(crate) async fn become_slow(&mut self) {
        sleep(SLOW).await;
        self.held = Arc::clone(&self.slow).acquire_owned().await.ok();
        sleep(HUNG).await;
        self.held = None;
    }

    /// Holds the permit until the first requests have ended.
    pub(crate) async fn hold_for_first_requests(self, gate: Arc<Gate>, guest_init: Duration) {
        let _long = timeout(guest_init * FIRST_REQUESTS, gate.emptied()).await;
    }
}
