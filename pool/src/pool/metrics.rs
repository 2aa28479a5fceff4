//! What a guest says of itself.

use std::time::{Duration, SystemTime};

use guest_api::{HOST_VSOCK_PORT, Metrics, client};
use pool_api::{GuestMetrics, SandboxId};
use tokio::time::timeout;
use tracing::debug;
use vmm_api::Machine;

use crate::cause::chain;

/// How long a guest may take to answer. One that is being written down stands still.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks a machine's agent.
pub(super) async fn ask(machine: &dyn Machine, id: &SandboxId) -> Option<GuestMetrics> {
    let asked = async {
        let stream = match machine.dial(HOST_VSOCK_PORT).await {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%id, error = chain(&error), "cannot ask a guest for its metrics");
                return None;
            }
        };
        match client::metrics(stream).await {
            Ok(metrics) => Some(metrics),
            Err(error) => {
                debug!(%id, error = chain(&error), "a guest did not tell its metrics");
                None
            }
        }
    };
    let metrics = timeout(LIMIT, asked).await.ok()??;
    Some(told(&metrics))
}

fn told(metrics: &Metrics) -> GuestMetrics {
    GuestMetrics {
        at: SystemTime::now(),
        cpus: metrics.cpu_count,
        cpu_used_pct: metrics.cpu_used_pct,
        memory_used: metrics.mem_used,
        memory_total: metrics.mem_total,
        memory_cache: metrics.mem_cache,
        disk_used: metrics.disk_used,
        disk_total: metrics.disk_total,
    }
}
