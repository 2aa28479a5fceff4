//! Snapshots that are asked for, and going back to them.

use std::sync::Arc;

use pool_api::{
    EnterError, ReleaseError, RollbackError, SandboxId, SandboxInfo, SandboxState, SnapshotError,
    SnapshotId, SnapshotScope, TakenSnapshot,
};
use snapshotter::Pin;
use tokio::time::Instant;

use super::Pool;
use crate::{
    driver::{Command, NotCaptured, Own},
    host::{Interrupted, blocking},
};

impl Pool {
    /// Takes a snapshot of a sandbox and keeps it.
    pub(super) async fn keep_snapshot(
        &self,
        id: &SandboxId,
        keep: SnapshotScope,
    ) -> Result<TakenSnapshot, SnapshotError> {
        let not_found = || SnapshotError::NotFound(id.clone());
        let failed = |source: pool_api::Cause| SnapshotError::Failed {
            id: id.clone(),
            source,
        };
        let handle = self.get(id).ok_or_else(not_found)?;
        let captured = handle
            .ask(|reply| Command::Capture { keep, reply })
            .await
            .ok_or_else(not_found)?;
        let (pin, scope) = match captured {
            Ok(pin) => (pin, keep),
            Err(NotCaptured::State(SandboxState::Paused, Some(own))) => {
                let scope = match own.keep {
                    SnapshotScope::Full => keep,
                    SnapshotScope::DiskOnly => SnapshotScope::DiskOnly,
                };
                (self.of_paused(own, keep).await.map_err(failed)?, scope)
            }
            Err(NotCaptured::State(SandboxState::Stopped(_), _)) => return Err(not_found()),
            Err(NotCaptured::State(state, _)) => {
                return Err(SnapshotError::Conflict {
                    id: id.clone(),
                    state,
                });
            }
            Err(NotCaptured::Failed(error)) => return Err(failed(error.cause())),
        };
        let (host, sandbox) = (Arc::clone(&self.host), id.clone());
        let taken = TakenSnapshot {
            id: pin.id().clone(),
            scope,
        };
        blocking(move || host.kept.add(pin, sandbox))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?;
        Ok(taken)
    }

    /// What a paused sandbox wakes from, or its disks.
    async fn of_paused(&self, own: Own, keep: SnapshotScope) -> Result<Pin, pool_api::Cause> {
        if keep == SnapshotScope::Full || own.keep == SnapshotScope::DiskOnly {
            return Ok(own.pin);
        }
        let store = Arc::clone(&self.host.store);
        let committed = blocking(move || store.keep_filesystem(own.pin.id())).await??;
        Ok(committed.pin)
    }

    /// Lets a kept snapshot go.
    pub(super) async fn give_snapshot_up(&self, snapshot: &SnapshotId) -> Result<(), ReleaseError> {
        let failed = |source: pool_api::Cause| ReleaseError {
            id: snapshot.clone(),
            source,
        };
        let (host, id) = (Arc::clone(&self.host), snapshot.clone());
        let removed = blocking(move || host.kept.remove(&id))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?;
        if removed {
            self.host.collect().await;
        }
        Ok(())
    }

    /// Puts a sandbox back to a snapshot of its own.
    pub(super) async fn roll_back(
        &self,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SandboxInfo, RollbackError> {
        let not_found = || RollbackError::NotFound(id.clone());
        let failed = |source: pool_api::Cause| RollbackError::Failed {
            id: id.clone(),
            source,
        };
        let handle = self.get(id).ok_or_else(not_found)?;
        let pin = self
            .host
            .kept
            .of(id, snapshot)
            .ok_or_else(|| RollbackError::NoSnapshot {
                id: id.clone(),
                snapshot: snapshot.clone(),
            })?;
        let (store, at) = (Arc::clone(&self.host.store), snapshot.clone());
        let keep = match blocking(move || store.manifest(&at)).await {
            Ok(Ok(manifest)) => manifest.keep(),
            Ok(Err(error)) => return Err(failed(error.into())),
            Err(Interrupted) => return Err(failed(Interrupted.into())),
        };
        let to = Own { pin, keep };
        let asked = Instant::now();
        let answer = handle
            .ask(|reply| Command::Rollback { to, asked, reply })
            .await;
        match answer.ok_or_else(not_found)? {
            Ok(lease) => {
                drop(lease);
                Ok(handle.info.borrow().clone())
            }
            Err(EnterError::NotFound(_)) => Err(not_found()),
            Err(EnterError::Transitioning { id, state }) => {
                Err(RollbackError::Conflict { id, state })
            }
            Err(EnterError::Failed { source, .. }) => Err(failed(source)),
            Err(error) => Err(failed(error.into())),
        }
    }
}
