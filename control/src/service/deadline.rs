//! Deadlines of running sandboxes.

use pool_api::{SandboxId, SandboxState};

use super::SandboxService;
use crate::{error::ServiceError, ledger::DeadlineChange, time::Lifetime};

impl SandboxService {
    /// Sets the deadline of a running sandbox.
    pub(crate) async fn set_deadline(
        &self,
        id: &SandboxId,
        lifetime: Lifetime,
    ) -> Result<(), ServiceError> {
        // An expiry that has begun completes first.
        let _lock = self.locks.shared(id).await;
        self.change_deadline(id, lifetime, DeadlineChange::Set)
            .await
    }

    /// Moves the deadline of a running sandbox to a later time, or leaves it unchanged.
    pub(crate) async fn extend_deadline(
        &self,
        id: &SandboxId,
        lifetime: Lifetime,
    ) -> Result<(), ServiceError> {
        let _lock = self.locks.shared(id).await;
        self.extend_deadline_locked(id, lifetime).await
    }

    /// Extends the deadline of a sandbox whose lock the caller holds.
    pub(super) async fn extend_deadline_locked(
        &self,
        id: &SandboxId,
        lifetime: Lifetime,
    ) -> Result<(), ServiceError> {
        self.change_deadline(id, lifetime, DeadlineChange::Extend)
            .await
    }

    async fn change_deadline(
        &self,
        id: &SandboxId,
        lifetime: Lifetime,
        change: DeadlineChange,
    ) -> Result<(), ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        match self.node.info(id).await.map(|info| info.state) {
            Some(SandboxState::Starting | SandboxState::Running) => {}
            Some(state @ (SandboxState::Pausing | SandboxState::Stopping)) => {
                return Err(ServiceError::in_state(id.clone(), state));
            }
            // A paused sandbox has no deadline to change.
            None | Some(SandboxState::Stopped(_) | SandboxState::Paused) => return Err(missing()),
        }
        let max = self.config.max_lifetime;
        let changed = self.ledger.set_deadline(id, lifetime, max, change).await?;
        changed.ok_or_else(missing)?;
        self.deadlines_changed.notify_one();
        Ok(())
    }
}
