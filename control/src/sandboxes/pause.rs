//! Pause.

use pool_api::{Epoch, PauseError, SandboxId, SandboxState, SnapshotScope};

use super::{Failure, Sandboxes};
use crate::{ledger::By, time::Micros};

impl Sandboxes {
    /// Pauses a sandbox. `healthy`: only if its guest agent answers.
    pub(crate) async fn pause(
        &self,
        id: &SandboxId,
        keep: SnapshotScope,
        healthy: bool,
    ) -> Result<(), Failure> {
        let missing = || Failure::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        let _turn = self.turns.shared(id).await;
        let info = self.node.info(id).await.ok_or_else(missing)?;
        if healthy && info.state == SandboxState::Running && !self.samples.answers(id).await {
            return Err(Failure::Unresponsive(id.clone()));
        }
        match self.node.pause(id, info.epoch, keep).await {
            Ok(taken) => {
                self.note_paused(id, info.epoch, Micros::now(), taken.scope, By::Owner)
                    .await
            }
            Err(error) => {
                if let PauseError::AlreadyPaused {
                    epoch,
                    since,
                    scope,
                    ..
                } = error
                {
                    // Its owner wants it paused, however it became so.
                    self.note_paused(id, epoch, since.into(), scope, By::Owner)
                        .await?;
                }
                Err(error.into())
            }
        }
    }

    /// Notes that a sandbox was paused, and lets the edge know when that changes who may wake it.
    pub(crate) async fn note_paused(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        at: Micros,
        keep: SnapshotScope,
        by: By,
    ) -> Result<(), Failure> {
        let noted = self.ledger.paused(id, epoch, at, keep, by).await?;
        if noted
            && keep == SnapshotScope::DiskOnly
            && let Some(entry) = self.ledger.get(id).await?
        {
            self.publish(&entry).await?;
        }
        self.ends_changed.notify_one();
        Ok(())
    }
}
