//! Keeps the snapshots that are promised, and gives the others up.
//!
//! A snapshot is kept by the host before it is promised in the ledger, and its promise is taken back before it is given
//! up. So a crash leaves at worst one that is kept for nobody, which the next start gives up; never a promise of one that
//! is gone. A host may name two snapshots alike (of a paused sandbox, say): nothing is given up while one is on its way
//! into the ledger.

use std::{collections::HashSet, sync::Arc, time::Duration};

use pool_api::{Node, SnapshotId};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard};
use tracing::{error, info, warn};

use crate::ledger::{Ledger, LedgerError};

/// How long snapshots that are wanted wait for those that are to be given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives snapshots up.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    node: Arc<dyn Node>,
    ledger: Ledger,
    /// Read by those that take snapshots, written by those that give them up.
    turn: Arc<RwLock<()>>,
}

/// While it is held nothing is given up.
#[derive(Debug)]
#[must_use = "a snapshot may be given up before it is promised"]
pub(crate) struct Taking {
    _turn: OwnedRwLockReadGuard<()>,
}

impl Keeper {
    pub(crate) fn new(node: Arc<dyn Node>, ledger: Ledger) -> Self {
        Self {
            node,
            ledger,
            turn: Arc::default(),
        }
    }

    /// Before a snapshot is taken, and until it is promised.
    pub(crate) async fn taking(&self) -> Taking {
        Taking {
            _turn: self.turn.clone().read_owned().await,
        }
    }

    /// Gives up those that nobody was promised, in time.
    pub(crate) fn release_snapshot(&self, snapshots: Vec<SnapshotId>) {
        if snapshots.is_empty() {
            return;
        }
        let keeper = self.clone();
        tokio::spawn(async move {
            if let Err(error) = keeper.give_up_now(&snapshots).await {
                error!(%error, "could not see which snapshots are promised, the next start will");
            }
        });
    }

    async fn give_up_now(&self, snapshots: &[SnapshotId]) -> Result<(), LedgerError> {
        let _turn = self.quiet().await;
        for snapshot in snapshots {
            if self.ledger.is_promised(snapshot).await? {
                continue;
            }
            if let Err(error) = self.node.release_snapshot(snapshot).await {
                let source = std::error::Error::source(&error);
                warn!(%error, ?source, "could not give a snapshot up, the next start will");
            }
        }
        Ok(())
    }

    /// Returns when no snapshot is on its way. New ones wait meanwhile, but not for one that takes for ever.
    async fn quiet(&self) -> RwLockWriteGuard<'_, ()> {
        loop {
            if let Ok(turn) = tokio::time::timeout(PATIENCE, self.turn.write()).await {
                return turn;
            }
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// Makes the host and the ledger agree, when nothing else is going on.
    pub(crate) async fn agree(&self) -> Result<(), LedgerError> {
        let kept = self.node.retained_snapshots().await;
        let promised = self.ledger.promised().await?;
        let there: HashSet<&SnapshotId> = kept.iter().collect();
        for snapshot in promised.iter().filter(|snapshot| !there.contains(snapshot)) {
            // Its entry stays: what cannot be read today may be tomorrow.
            error!(%snapshot, "the host does not have a snapshot that was promised");
        }
        let wanted: HashSet<&SnapshotId> = promised.iter().collect();
        let spare = kept.iter().filter(|snapshot| !wanted.contains(snapshot));
        let spare: Vec<SnapshotId> = spare.cloned().collect();
        if !spare.is_empty() {
            info!(
                count = spare.len(),
                "giving up snapshots that nobody was promised"
            );
        }
        self.give_up_now(&spare).await
    }
}
