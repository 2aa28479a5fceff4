//! Pauses idle sandboxes to make room.

use std::{sync::Arc, time::Duration};

use pool_api::SandboxState;
use tokio::{sync::mpsc, time::Instant};
use tracing::info;

use crate::{
    driver::{Command, Handle},
    eviction::Eviction,
    registry::Registry,
};

/// Carries out requests until the host is gone.
pub(super) async fn run(
    registry: Registry<Handle>,
    least_awake: Duration,
    mut requests: mpsc::UnboundedReceiver<Eviction>,
) {
    while let Some(reply) = requests.recv().await {
        // The caller may have left.
        let _received = reply.send(evict_one(&registry, least_awake).await);
    }
}

/// Pauses the sandbox that has been idle for the longest time; returns whether there was one.
async fn evict_one(registry: &Registry<Handle>, least_awake: Duration) -> bool {
    let now = Instant::now();
    let mut candidates: Vec<(Instant, Arc<Handle>)> = registry
        .all()
        .into_iter()
        .filter(|handle| handle.spec.idle.is_some())
        .filter(|handle| handle.info.borrow().state == SandboxState::Running)
        .filter_map(|handle| Some((handle.idle_since()?, handle)))
        .filter(|(since, _)| *since + least_awake <= now)
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
