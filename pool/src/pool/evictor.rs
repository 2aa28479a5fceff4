//! Pauses idle sandboxes to make room.

use std::{collections::BTreeSet, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use pool_api::{PauseError, SandboxId};
use tokio::{sync::mpsc, time::sleep};
use tracing::info;

use crate::{
    driver::{Command, Handle},
    eviction::Eviction,
    registry::Registry,
};

/// The time before a sandbox that was not idle when asked to pause is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// Carries out requests until the host is gone.
pub(super) async fn run(
    registry: Registry<Handle>,
    least_awake: Duration,
    mut requests: mpsc::UnboundedReceiver<Eviction>,
) {
    while let Some(mut reply) = requests.recv().await {
        let evicted = tokio::select! {
            () = evict_one(&registry, least_awake) => true,
            () = reply.closed() => false,
        };
        if evicted {
            // The caller may have left.
            let _received = reply.send(());
        }
    }
}

/// Pauses the sandbox that has been idle for the longest time, once there is one. A sandbox whose pause fails is not tried
/// again; one that is in use by then (a request, a capture) is.
async fn evict_one(registry: &Registry<Handle>, least_awake: Duration) {
    let mut failed: BTreeSet<SandboxId> = BTreeSet::new();
    let mut in_use: BTreeSet<SandboxId> = BTreeSet::new();
    loop {
        let handles: Vec<_> = registry
            .all()
            .into_iter()
            .filter(|handle| handle.spec.idle.is_some() && !failed.contains(&handle.spec.id))
            .collect();
        // Also waits for sandboxes that start now.
        let mut idle: FuturesUnordered<_> = handles
            .iter()
            .map(async |handle| {
                if in_use.contains(&handle.spec.id) {
                    sleep(RETRY).await;
                }
                (handle.idle_for(least_awake).await, handle)
            })
            .collect();
        let Some(first) = idle.next().await else {
            return std::future::pending().await;
        };
        let mut candidates = vec![first];
        while let Some(Some(more)) = idle.next().now_or_never() {
            candidates.push(more);
        }
        candidates.sort_by_key(|(since, _)| *since);
        drop(idle);
        for (_, handle) in candidates {
            let id = &handle.spec.id;
            match handle.ask(|reply| Command::PauseIfIdle { reply }).await {
                Some(Ok(_)) => {
                    info!(sandbox.id = %id, "idle sandbox paused to make room");
                    return;
                }
                Some(Err(PauseError::Conflict { .. })) => {
                    in_use.insert(id.clone());
                }
                Some(Err(_)) | None => {
                    failed.insert(id.clone());
                }
            }
        }
    }
}
