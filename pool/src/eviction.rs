//! Room for a start on a full host: idle sandboxes are paused ahead of their idle window, the least recently used first.

use std::{sync::Arc, time::Duration};

use pool_api::SandboxState;
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::{
    capacity::{NoRoom, Reservation},
    driver::{Command, Handle},
    host::Host,
};

/// The time for a paused sandbox's machine to free its memory.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reserves capacity for a machine with `memory` bytes. While the host is full, it pauses idle sandboxes that have an idle
/// window.
pub(crate) async fn reserve_or_evict(host: &Host, memory: u64) -> Result<Reservation, NoRoom> {
    loop {
        // Created first, so that it completes when memory is freed from here on.
        let freed = host.capacity.freed();
        match host.capacity.reserve(memory) {
            Ok(reservation) => return Ok(reservation),
            Err(no_room) if host.capacity.fits_when_empty(memory) => {
                if !evict_one(host).await {
                    return Err(no_room);
                }
                // Without an end the next attempt says so.
                let _late = timeout(FREE_TIMEOUT, freed).await;
            }
            Err(no_room) => return Err(no_room),
        }
    }
}

/// Pauses the sandbox that has been idle for the longest time; returns whether there was one.
async fn evict_one(host: &Host) -> bool {
    let now = Instant::now();
    let mut candidates: Vec<(Instant, Arc<Handle>)> = host
        .registry
        .all()
        .into_iter()
        .filter(|handle| handle.spec.idle.is_some())
        .filter(|handle| handle.info.borrow().state == SandboxState::Running)
        .filter_map(|handle| Some((handle.idle_since()?, handle)))
        .filter(|(since, _)| *since + host.config.least_awake <= now)
        .collect();
    candidates.sort_by_key(|(since, _)| *since);
    for (_, handle) in candidates {
        let paused = handle.ask(|reply| Command::PauseIfIdle { reply }).await;
        if let Some(Ok(_)) = paused {
            info!(sandbox.id = %handle.spec.id, "idle sandbox paused to make room");
            return true;
        }
    }
    false
}
