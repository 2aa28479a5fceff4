//! When a running sandbox ends.

use pool_api::{SandboxId, SandboxState};

use super::{Conflict, Failure, Sandboxes};
use crate::time::Window;

impl Sandboxes {
    /// Sets when a running sandbox ends.
    pub(crate) async fn set_timeout(&self, id: &SandboxId, window: Window) -> Result<(), Failure> {
        self.must_run(id).await?;
        self.move_end(id, window, false).await
    }

    /// Moves the end of a running sandbox to a later time, or leaves it.
    pub(crate) async fn extend(&self, id: &SandboxId, window: Window) -> Result<(), Failure> {
        self.must_run(id).await?;
        self.move_end(id, window, true).await
    }

    async fn must_run(&self, id: &SandboxId) -> Result<(), Failure> {
        match self.node.info(id).await.map(|info| info.state) {
            None | Some(SandboxState::Stopped(_)) => Err(Failure::NotFound(id.clone())),
            Some(state @ (SandboxState::Pausing | SandboxState::Stopping)) => {
                Err(Conflict::between(id.clone(), state))
            }
            // A paused sandbox has no end to move.
            Some(SandboxState::Paused) => Err(Failure::NotFound(id.clone())),
            Some(SandboxState::Starting | SandboxState::Running) => Ok(()),
        }
    }

    async fn move_end(
        &self,
        id: &SandboxId,
        window: Window,
        only_later: bool,
    ) -> Result<(), Failure> {
        let longest = self.config.longest;
        let moved = self.ledger.set_end(id, window, longest, only_later).await?;
        moved.ok_or_else(|| Failure::NotFound(id.clone()))?;
        self.ends_changed.notify_one();
        Ok(())
    }
}
