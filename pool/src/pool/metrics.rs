//! Metrics that guests report.

use std::time::{Duration, SystemTime};

use guest_api::{HOST_VSOCK_PORT, Metrics, client};
use pool_api::{GuestMetrics, SandboxId};
use tokio::time::timeout;
use tracing::debug;
use vmm_api::Machine;

/// The timeout of a report. A machine that is being captured does not respond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a machine's agent for its metrics.
pub(super) async fn query(machine: &dyn Machine, id: &SandboxId) -> Option<GuestMetrics> {
    let call = async {
        let stream = match machine.dial(HOST_VSOCK_PORT).await {
            Ok(stream) => stream,
            Err(error) => {
                let error = error_chain::chain(&error);
                debug!(sandbox.id = %id, %error, "failed to connect to guest agent");
                return None;
            }
        };
        match client::metrics(stream).await {
            Ok(metrics) => Some(metrics),
            Err(error) => {
                let error = error_chain::chain(&error);
                debug!(sandbox.id = %id, %error, "failed to query guest metrics");
                None
            }
        }
    };
    let metrics = timeout(TIMEOUT, call).await.ok()??;
    Some(convert(&metrics))
}

fn convert(metrics: &Metrics) -> GuestMetrics {
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
