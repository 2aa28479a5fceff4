//! Retains the snapshots that builds reference and releases the others.
//!
//! The host retains a snapshot before the ledger references it, and the ledger drops the reference before the host
//! releases the snapshot. So a crash leaves at worst a snapshot without a reference, never a reference to a released
//! snapshot. The next startup releases it if its reference was removed, and otherwise puts it into quarantine. The host may return one snapshot twice, for example of a paused sandbox, so
//! nothing is released between the capture and the reference.

use std::{collections::HashSet, sync::Arc, time::Duration};

use error_chain::chain;
use pool_api::{Node, SnapshotId};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard};
use tracing::{error, info, warn};

use crate::ledger::{HostObject, Ledger, LedgerError};

/// How long new snapshots wait for a release that waits for a snapshot in progress.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Releases snapshots that no build references.
#[derive(Debug, Clone)]
pub(super) struct SnapshotRetention {
    node: Arc<dyn Node>,
    ledger: Ledger,
    /// Shared by captures, exclusive for releases.
    lock: Arc<RwLock<()>>,
}

/// Prevents releases.
#[derive(Debug)]
#[must_use = "the snapshot may be released before it is referenced"]
pub(super) struct RetentionGuard {
    _lock: OwnedRwLockReadGuard<()>,
}

impl SnapshotRetention {
    /// Creates the retention of a host's snapshots.
    pub(super) fn new(node: Arc<dyn Node>, ledger: Ledger) -> Self {
        Self {
            node,
            ledger,
            lock: Arc::default(),
        }
    }

    /// Prevents releases from before a capture until its snapshot is referenced.
    pub(super) async fn lock_shared(&self) -> RetentionGuard {
        RetentionGuard {
            _lock: self.lock.clone().read_owned().await,
        }
    }

    /// Releases in the background those of the snapshots that no build references.
    pub(super) fn release(&self, snapshots: Vec<SnapshotId>) {
        if snapshots.is_empty() {
            return;
        }
        let retention = self.clone();
        tokio::spawn(async move {
            if let Err(error) = retention.release_unreferenced(&snapshots).await {
                // The next startup releases them.
                error!(error = %chain(&error), "failed to release snapshots");
            }
        });
    }

    async fn release_unreferenced(&self, snapshots: &[SnapshotId]) -> Result<(), LedgerError> {
        let _lock = self.lock_exclusive().await;
        for snapshot in snapshots {
            if !self.ledger.is_referenced(snapshot).await?
                && let Err(error) = self.node.release_snapshot(snapshot).await
            {
                // The next startup releases it.
                warn!(snapshot.id = %snapshot, error = %chain(&error), "failed to release snapshot");
                continue;
            }
            self.ledger.released(snapshot).await?;
        }
        Ok(())
    }

    /// Waits until no capture is in progress. New captures wait too, but at most [`LOCK_TIMEOUT`] at a time, so that one
    /// that hangs does not block the others.
    async fn lock_exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        loop {
            if let Ok(lock) = tokio::time::timeout(LOCK_TIMEOUT, self.lock.write()).await {
                return lock;
            }
            tokio::time::sleep(LOCK_TIMEOUT).await;
        }
    }

    /// Releases the snapshots whose last reference was removed, and puts those that never had one into quarantine. Runs
    /// at startup, before requests.
    pub(super) async fn reconcile(&self) -> Result<(), LedgerError> {
        let retained = self.node.retained_snapshots().await;
        let referenced = self.ledger.referenced_snapshots().await?;
        let on_host: HashSet<&SnapshotId> = retained.iter().collect();
        for snapshot in referenced
            .iter()
            .filter(|snapshot| !on_host.contains(snapshot))
        {
            // The reference stays: the host may be able to read the snapshot again later.
            error!(snapshot.id = %snapshot, "referenced snapshot is missing on the host");
        }
        let in_ledger: HashSet<&SnapshotId> = referenced.iter().collect();
        let pending = self.ledger.pending_releases().await?;
        for snapshot in &retained {
            if !in_ledger.contains(snapshot) && !pending.contains(snapshot) {
                warn!(snapshot.id = %snapshot, "unrecorded snapshot put into quarantine");
                let object = HostObject::Snapshot(snapshot.clone());
                self.ledger.quarantine(&object).await?;
            }
        }
        if !pending.is_empty() {
            info!(count = pending.len(), "releasing unreferenced snapshots");
        }
        self.release_unreferenced(&pending).await
    }
}
