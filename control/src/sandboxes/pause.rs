//! Pause.

use pool_api::{Epoch, Keep, PauseError, SandboxId, SandboxState};

use super::{Failure, Sandboxes};
use crate::{ledger::By, time::Micros};

impl Sandboxes {
    /// Pauses a sandbox. `healthy`: only if its guest agent answers.
    pub(crate) async fn pause(
        &self,
        id: &SandboxId,
        keep: Keep,
        healthy: bool,
    ) -> Result<(), Failure> {
        let missing = || Failure::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        let _turn = self.turns.shared(id).await;
        let info = self.node.info(id).await.ok_or_else(missing)?;
        if healthy && info.state == SandboxState::Running && !self.samples.answers(id).await {
            return Err(Failure::Unresponsive(id.clone()));
        }
        if let Err(error) = self.node.pause(id, info.epoch, keep).await {
            if matches!(error, PauseError::Already(_)) {
                // Whoever put it to sleep, its owner wants it so.
                let at = info.since.into();
                self.note_paused(id, info.epoch, at, info.keep, By::Owner)
                    .await?;
            }
            return Err(error.into());
        }
        // Whoever began the pause said what is kept.
        let keep = self.node.info(id).await.map_or(keep, |info| info.keep);
        self.note_paused(id, info.epoch, Micros::now(), keep, By::Owner)
            .await
    }

    /// Notes that a sandbox was paused, and lets the edge know when that changes who may wake it.
    pub(crate) async fn note_paused(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        at: Micros,
        keep: Keep,
        by: By,
    ) -> Result<(), Failure> {
        let noted = self.ledger.paused(id, epoch, at, keep, by).await?;
        if noted
            && keep == Keep::Filesystem
            && let Some(entry) = self.ledger.get(id).await?
        {
            self.publish(&entry).await?;
        }
        self.ends_changed.notify_one();
        Ok(())
    }
}
