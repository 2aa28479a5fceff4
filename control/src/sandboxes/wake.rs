//! Resume and connect.

use std::time::Duration;

use pool_api::SandboxId;

use super::{Conflict, Failure, Sandboxes};
use crate::{ledger::Entry, time::Micros};

/// How a connect came about.
#[derive(Debug)]
pub(crate) enum Connected {
    /// It ran; its end moved at most.
    Running(Entry),
    /// It was woken.
    Resumed(Entry),
}

impl Sandboxes {
    /// Wakes a paused sandbox.
    pub(crate) async fn resume(&self, id: &SandboxId, timeout: Duration) -> Result<Entry, Failure> {
        let mut entry = self
            .ledger
            .get(id)
            .await?
            .ok_or_else(|| Failure::NotFound(id.clone()))?;
        let info = self.node.resume(id).await?;
        let now = Micros::now();
        entry.running = true;
        entry.epoch = info.epoch;
        entry.started_at = now;
        entry.end_at = now.after(timeout);
        self.ledger
            .started(id, entry.epoch, entry.started_at, entry.end_at)
            .await?;
        self.publish(&entry).await?;
        self.ends_changed.notify_one();
        Ok(entry)
    }

    /// Wakes a sandbox if it is paused, and sees that it has at least `timeout` to live.
    pub(crate) async fn connect(
        &self,
        id: &SandboxId,
        timeout: Duration,
    ) -> Result<Connected, Failure> {
        match self.resume(id, timeout).await {
            Ok(entry) => Ok(Connected::Resumed(entry)),
            Err(Failure::Conflict(Conflict::AlreadyRunning(_))) => {
                match self.extend(id, timeout).await {
                    // The ledger may still have it paused when somebody's request has just woken it.
                    Ok(()) | Err(Failure::NotFound(_)) => {}
                    Err(failure) => return Err(failure),
                }
                Ok(Connected::Running(self.get(id).await?.entry))
            }
            Err(failure) => Err(failure),
        }
    }
}
