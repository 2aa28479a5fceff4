//! Room for a start on a full host: starts wait in order of arrival, and idle sandboxes are paused ahead of their idle
//! window, the least recently used first.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::capacity::{Capacity, Demand, NoRoom, Reservation};

/// Asks the pool to pause the sandbox that has been idle for the longest time, once there is one.
#[derive(Debug)]
pub(crate) struct Evictions {
    requests: mpsc::UnboundedSender<Eviction>,
    /// Held by the first start in the queue for room; the others wait in order of arrival.
    first: Mutex<()>,
}

/// Replied to when a sandbox has been paused. A request whose receiver is dropped is abandoned.
pub(crate) type Eviction = oneshot::Sender<()>;

impl Evictions {
    /// Creates the requests' side, and the side that carries them out one by one.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Eviction>) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let first = Mutex::new(());
        (Self { requests, first }, receiver)
    }

    async fn evict_one(&self) {
        let (reply, evicted) = oneshot::channel();
        // An error means that the pool is gone.
        if self.requests.send(reply).is_ok() {
            let _gone = evicted.await;
        }
    }
}

/// Reserves capacity for a machine. On a full host it waits at most for `limit` for its turn and for room, unless no machine
/// belongs to a sandbox with an idle window.
pub(crate) async fn reserve_or_evict(
    capacity: &Arc<Capacity>,
    evictions: &Evictions,
    demand: Demand,
    limit: Duration,
) -> Result<Reservation, NoRoom> {
    let deadline = Instant::now() + limit;
    let Ok(_turn) = timeout_at(deadline, evictions.first.lock()).await else {
        return Err(NoRoom("other starts wait for room".to_owned()));
    };
    loop {
        // Created first, so that it completes when memory is freed from here on.
        let mut freed = std::pin::pin!(capacity.freed());
        let no_room = match capacity.reserve(demand) {
            Ok(reservation) => return Ok(reservation),
            Err(no_room) => no_room,
        };
        if !capacity.fits_when_empty(demand.memory) || !capacity.has_evictable() {
            return Err(no_room);
        }
        let more = async {
            tokio::select! {
                () = &mut freed => return,
                () = evictions.evict_one() => {}
            }
            // A paused sandbox's machine is destroyed in the background.
            freed.await;
        };
        if timeout_at(deadline, more).await.is_err() {
            return Err(no_room);
        }
    }
}
