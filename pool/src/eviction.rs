//! Room for a start on a full host: idle sandboxes are paused ahead of their idle window, the least recently used first.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::capacity::{Capacity, NoRoom, Reservation};

/// The time for a paused sandbox's machine to free its memory.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the pool to pause the sandbox that has been idle for the longest time. The reply tells if there was one.
#[derive(Debug, Clone)]
pub(crate) struct Evictions(mpsc::UnboundedSender<Eviction>);

/// The reply to one request.
pub(crate) type Eviction = oneshot::Sender<bool>;

impl Evictions {
    /// Creates the requests' side, and the side that carries them out one by one.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Eviction>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    async fn evict_one(&self) -> bool {
        let (reply, evicted) = oneshot::channel();
        // An error means that the pool is gone.
        self.0.send(reply).is_ok() && evicted.await.unwrap_or(false)
    }
}

/// Reserves capacity for a machine with `memory` bytes. While the host is full, it pauses idle sandboxes that have an idle
/// window.
pub(crate) async fn reserve_or_evict(
    capacity: &Arc<Capacity>,
    evictions: &Evictions,
    memory: u64,
) -> Result<Reservation, NoRoom> {
    loop {
        // Created first, so that it completes when memory is freed from here on.
        let freed = capacity.freed();
        match capacity.reserve(memory) {
            Ok(reservation) => return Ok(reservation),
            Err(no_room) if capacity.fits_when_empty(memory) => {
                if !evictions.evict_one().await {
                    return Err(no_room);
                }
                // The next attempt reports it if none was freed.
                let _late = timeout(FREE_TIMEOUT, freed).await;
            }
            Err(no_room) => return Err(no_room),
        }
    }
}
