//! Retained snapshots, and rollbacks to them.

use std::sync::Arc;

use pool_api::{
    Cause, FailedPart, ReleaseError, RollbackError, SandboxId, SandboxInfo, SandboxState,
    SnapshotError, SnapshotId, SnapshotScope, TakenSnapshot,
};
use snapshotter::Pin;
use tokio::time::Instant;

use super::Pool;
use crate::{
    blocking::{Interrupted, blocking},
    driver::{CaptureRejected, Command},
    lifecycle::WakeSource,
};

impl Pool {
    /// Takes a snapshot of a sandbox and retains it.
    pub(super) async fn retain_snapshot(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, SnapshotError> {
        let not_found = || SnapshotError::NotFound(id.clone());
        let failed = |source: Cause| SnapshotError::Failed {
            id: id.clone(),
            source,
        };
        let handle = self.get(id).ok_or_else(not_found)?;
        let captured = handle
            .ask(|reply| Command::Capture { scope, reply })
            .await
            .ok_or_else(not_found)?;
        let (pin, scope) = match captured {
            Ok(pin) => (pin, scope),
            Err(CaptureRejected::Paused(source)) => {
                self.of_paused(source, scope).await.map_err(failed)?
            }
            Err(CaptureRejected::Gone | CaptureRejected::State(SandboxState::Stopped(_))) => {
                return Err(not_found());
            }
            Err(CaptureRejected::State(state)) => {
                let id = id.clone();
                return Err(SnapshotError::Conflict { id, state });
            }
            Err(CaptureRejected::Failed(error)) => return Err(failed(error.cause())),
        };
        let taken = TakenSnapshot {
            id: pin.id().clone(),
            scope,
        };
        let (retained, sandbox) = (Arc::clone(&self.retained), id.clone());
        blocking(move || retained.add(pin, sandbox))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?;
        Ok(taken)
    }

    /// Returns a paused sandbox's snapshot, or one of its disks, with its scope.
    async fn of_paused(
        &self,
        source: WakeSource<Pin>,
        scope: SnapshotScope,
    ) -> Result<(Pin, SnapshotScope), Cause> {
        if scope == SnapshotScope::Full || source.scope == SnapshotScope::DiskOnly {
            return Ok((source.snapshot, source.scope));
        }
        let store = Arc::clone(&self.host.store);
        let committed = blocking(move || store.derive_disk_only(source.snapshot.id())).await??;
        Ok((committed.pin, SnapshotScope::DiskOnly))
    }

    /// Releases a retained snapshot.
    pub(super) async fn release(&self, snapshot: &SnapshotId) -> Result<(), ReleaseError> {
        let failed = |source: Cause| ReleaseError {
            id: snapshot.clone(),
            source,
        };
        let (retained, id) = (Arc::clone(&self.retained), snapshot.clone());
        let removed = blocking(move || retained.remove(&id))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?;
        self.host.broken.remove_snapshot(snapshot);
        if removed {
            self.host.collect().await;
        }
        Ok(())
    }

    /// Rolls a sandbox back to a retained snapshot of its own.
    pub(super) async fn roll_back(
        &self,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SandboxInfo, RollbackError> {
        let not_found = || RollbackError::NotFound(id.clone());
        let failed = |source: Cause| RollbackError::Failed {
            id: id.clone(),
            part: FailedPart::Host,
            source,
        };
        let handle = self.get(id).ok_or_else(not_found)?;
        let no_snapshot = || RollbackError::NoSnapshot {
            id: id.clone(),
            snapshot: snapshot.clone(),
        };
        let pin = self
            .retained
            .of_sandbox(id, snapshot)
            .ok_or_else(no_snapshot)?;
        let (store, manifest_id) = (Arc::clone(&self.host.store), snapshot.clone());
        let scope = match blocking(move || store.manifest(&manifest_id)).await {
            Ok(Ok(manifest)) => manifest.scope(),
            Ok(Err(error)) => return Err(failed(error.into())),
            Err(Interrupted) => return Err(failed(Interrupted.into())),
        };
        let target = WakeSource {
            snapshot: pin,
            scope,
        };
        let asked = Instant::now();
        let started = handle
            .ask(|reply| Command::Rollback {
                target,
                asked,
                reply,
            })
            .await;
        drop(started.ok_or_else(not_found)??);
        Ok(handle.info.borrow().clone())
    }
}
