//! Letting a guest write back what it holds, before it is booted from its disk.
//!
//! A snapshot with memory is of a disk under a running kernel, which holds files that are not on it yet. Booted from that
//! disk, the guest would find what a power cut leaves. So its memory is woken once more, out of everybody's reach, and its
//! disk is kept when all is written back.

use std::sync::Arc;

use pool_api::SnapshotScope;
use snapshotter::{Damage, Pin};
use tracing::warn;

use super::{Plan, StartError, make};
use crate::{
    cause::chain,
    host::{Host, blocking},
    pause::{WriteError, write_down},
};

/// Why a guest boots from the disk as it was.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error("wake the guest")]
    Wake(#[source] Box<StartError>),
    #[error("keep the guest's disk")]
    Keep(#[source] WriteError),
    #[error("serve guest memory")]
    Damaged(#[source] Damage),
}

/// Makes the plan one of a disk that has everything on it. A guest that cannot be woken boots from the disk as it is.
pub(super) async fn settle(host: &Host, plan: &mut Plan) {
    let (store, id) = (Arc::clone(&host.store), plan.snapshot.id().clone());
    let manifest = blocking(move || store.manifest(&id)).await;
    // What cannot be read is told by whoever has to.
    if !matches!(manifest, Ok(Ok(manifest)) if manifest.keep() == SnapshotScope::Full) {
        return;
    }
    match write_back(host, plan.clone()).await {
        Ok(snapshot) => plan.snapshot = snapshot,
        Err(error) => warn!(
            sandbox = %plan.spec.id,
            error = chain(&error),
            "a guest could not write back what it holds, and boots from the disk as it is"
        ),
    }
}

/// Wakes the guest, keeps its disk, and ends it. What the guest has to do is bounded where it is asked for it.
async fn write_back(host: &Host, plan: Plan) -> Result<Pin, SettleError> {
    let home = plan.home.clone();
    let plan = Plan {
        from: SnapshotScope::Full,
        ..plan
    };
    let woken = make(host, plan).await;
    let mut live = woken
        .map_err(|error| SettleError::Wake(Box::new(error)))?
        .live;
    let cut = live.cut(&home);
    // A guest whose page cannot be served stands still for ever. Once it is stopped it needs none.
    let written = tokio::select! {
        written = write_down(host, &*live.machine, SnapshotScope::DiskOnly, cut, None) => {
            written.map_err(SettleError::Keep)
        }
        Some(damage) = live.damage.recv() => Err(SettleError::Damaged(damage)),
    };
    live.end().await;
    Ok(written?.pin)
}
