//! Rollback.

use pool_api::{SandboxId, SandboxState};

use super::{Failure, Found, Sandboxes};
use crate::{ledger::Build, reference::Reference, time::Micros};

impl Sandboxes {
    /// Puts a sandbox back to a snapshot that was taken of it. One that ran keeps its times; one that slept is given a
    /// fresh window.
    pub(crate) async fn roll_back(&self, id: &SandboxId, written: &str) -> Result<(), Failure> {
        let missing = || Failure::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        let build = self.own_build(id, written).await?;
        let _turn = self.turns.alone(id).await;
        let mut entry = self.ledger.get(id).await?.ok_or_else(missing)?;
        let before = self.node.info(id).await.ok_or_else(missing)?;
        let info = self.node.rollback(id, &build.snapshot).await?;
        entry.running = true;
        entry.epoch = info.epoch;
        if before.state == SandboxState::Running {
            self.ledger.rolled_back(&entry, info.epoch).await?;
        } else {
            let now = Micros::now();
            let end = entry.lasting.timeout.end(now, now, self.config.longest);
            self.ledger.started(id, info.epoch, now, end).await?;
        }
        self.publish(&entry).await?;
        self.ends_changed.notify_one();
        Ok(())
    }

    async fn own_build(&self, id: &SandboxId, written: &str) -> Result<Build, Failure> {
        let missing = || Failure::NoSnapshot {
            snapshot: written.chars().take(80).collect(),
            sandbox: id.clone(),
        };
        let reference: Reference = written.parse()?;
        let found = match self.find(&reference).await {
            Ok(Found::Snapshots(template)) => template,
            Ok(Found::Host(_)) | Err(Failure::NoTemplate(_)) => return Err(missing()),
            Err(failure) => return Err(failure),
        };
        let build = self.build_of(&found, &reference.tag_or_default()).await;
        match build {
            Ok(build) if build.origin == *id => Ok(build),
            Ok(_) | Err(Failure::NoTemplate(_)) => Err(missing()),
            Err(failure) => Err(failure),
        }
    }
}
