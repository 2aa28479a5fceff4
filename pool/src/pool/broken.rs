//! Broken sandboxes and snapshots: retries and removal.

use std::sync::Arc;

use pool_api::{Broken, EnterError, FailedPart, SandboxId};
use tracing::{info, warn};

use super::Pool;
use crate::{
    blocking::{Interrupted, blocking},
    driver::Handle,
    recovery::{RecoveryError, recover_sandbox},
};

impl Pool {
    /// Finds a sandbox. A broken one recovers first, if its files can be read again.
    pub(super) async fn find(&self, id: &SandboxId) -> Result<Arc<Handle>, EnterError> {
        if let Some(handle) = self.get(id) {
            return Ok(handle);
        }
        if !self.host.broken.is_broken(id) {
            return Err(EnterError::NotFound(id.clone()));
        }
        if let Err(error) = self.recover(id).await {
            let part = match &error {
                RecoveryError::NoSnapshot(_) => FailedPart::Snapshot,
                _ => FailedPart::Host,
            };
            return Err(EnterError::Failed {
                id: id.clone(),
                part,
                source: error.into(),
            });
        }
        self.get(id).ok_or_else(|| EnterError::NotFound(id.clone()))
    }

    /// Tries to recover every broken object, and describes those that are still broken.
    pub(super) async fn retry_broken(&self) -> Vec<Broken> {
        for id in self.host.broken.sandboxes() {
            // The reason is recorded.
            let _still_broken = self.recover(&id).await;
        }
        for id in self.host.broken.snapshots() {
            let (retained, host) = (Arc::clone(&self.retained), Arc::clone(&self.host));
            let retry = move || match retained.load(&id, &host.store) {
                Ok(()) => host.broken.remove_snapshot(&id),
                Err(error) => host
                    .broken
                    .add_snapshot(id, error_chain::chain(&error).to_string()),
            };
            if let Err(Interrupted) = blocking(retry).await {
                warn!("retries of broken snapshots were interrupted");
            }
        }
        self.host.broken.all()
    }

    async fn recover(&self, id: &SandboxId) -> Result<(), RecoveryError> {
        let (host, registry) = (Arc::clone(&self.host), self.registry.clone());
        let (sandbox, dir) = (id.clone(), self.sandbox_dir(id));
        let runtime = tokio::runtime::Handle::current();
        let recovered = blocking(move || {
            // The driver is a task.
            let _entered = runtime.enter();
            recover_sandbox(&host, &registry, &sandbox, &dir)
        });
        let Ok(recovered) = recovered.await else {
            return Err(RecoveryError::Interrupted(Interrupted));
        };
        match recovered {
            Ok(_) => {
                self.host.broken.remove_sandbox(id);
                info!(sandbox.id = %id, "broken sandbox recovered");
                Ok(())
            }
            Err(error) => {
                let reason = error_chain::chain(&error).to_string();
                self.host.broken.add_sandbox(id.clone(), reason);
                Err(error)
            }
        }
    }

    /// Removes a broken sandbox; `None` when there is none, or its files cannot be removed.
    pub(super) async fn remove_broken(&self, id: &SandboxId) -> Option<()> {
        if !self.host.broken.is_broken(id) {
            return None;
        }
        let dir = self.sandbox_dir(id);
        match blocking(move || dir.remove()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = error_chain::chain(&error);
                warn!(sandbox.id = %id, %error, "failed to remove broken sandbox");
                return None;
            }
            Err(Interrupted) => return None,
        }
        self.host.broken.remove_sandbox(id).then_some(())
    }
}
