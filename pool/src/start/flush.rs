//! Writing a guest's page cache back before it boots from its disk.
//!
//! A snapshot with memory has the disk of a running kernel, whose page cache holds data that is not on that disk yet. A
//! boot from it would find what a power failure leaves. So the memory is restored once more, without admitting callers,
//! and the disk is captured after a filesystem freeze.

use pool_api::SnapshotScope;
use snapshotter::{Damage, Pin};
use tracing::warn;

use super::{StartError, StartInputs, make_machine};
use crate::{
    host::Host,
    snapshot::{SnapshotError, take_snapshot},
    start_plan::StartPlan,
};

/// The reason why a guest boots from its disk as it is.
#[derive(Debug, thiserror::Error)]
enum FlushError {
    #[error("failed to restore the guest")]
    Restore(#[source] Box<StartError>),
    #[error("failed to capture the guest's disk")]
    Capture(#[source] SnapshotError),
    #[error("failed to serve guest memory")]
    Damaged(#[source] Damage),
}

/// Replaces the snapshot by one whose disk is complete. A guest that cannot write back boots from its disk as it is.
pub(super) async fn flush_before_boot(host: &Host, inputs: &mut StartInputs) {
    match flush(host, inputs.clone()).await {
        Ok(snapshot) => inputs.snapshot = snapshot,
        Err(error) => warn!(
            error = %error_chain::chain(&error),
            "failed to write back page cache; booting from the disk as it is"
        ),
    }
}

/// Restores the guest, captures its disk and destroys it. Each call to the guest has its own timeout.
async fn flush(host: &Host, inputs: StartInputs) -> Result<Pin, FlushError> {
    let inputs = StartInputs {
        plan: StartPlan::Restore,
        ..inputs
    };
    // Boxed, as the future of `make_machine` is large.
    let restored = Box::pin(make_machine(host, inputs)).await;
    let mut running = restored
        .map_err(|error| FlushError::Restore(Box::new(error)))?
        .machine;
    let source = running.capture_source();
    let machine = std::sync::Arc::clone(&running.machine);
    // A guest that waits for a damaged page never answers.
    let taken = tokio::select! {
        taken = take_snapshot(host, &*machine, SnapshotScope::DiskOnly, source, None) => {
            taken.map_err(|failed| FlushError::Capture(failed.error))
        }
        Some(damage) = running.damage.recv() => Err(FlushError::Damaged(damage)),
    };
    running.destroy().await;
    Ok(taken?.pin)
}
