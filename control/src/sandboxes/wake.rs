//! Resume and connect.

use pool_api::{SandboxId, SnapshotScope};

use super::{Conflict, Failure, Sandboxes};
use crate::{
    ledger::Entry,
    time::{Micros, Window},
};

/// What a caller wishes of a sandbox that it wakes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// How long it should live; `None`: as long as it was given when it was made, or has left.
    pub(crate) window: Option<Window>,
    /// What to wake it from.
    pub(crate) from: SnapshotScope,
}

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
    pub(crate) async fn resume(&self, id: &SandboxId, wish: Wish) -> Result<Entry, Failure> {
        let _turn = self.turns.alone(id).await;
        self.resume_in_turn(id, wish).await
    }

    async fn resume_in_turn(&self, id: &SandboxId, wish: Wish) -> Result<Entry, Failure> {
        let missing = || Failure::NotFound(id.clone());
        let mut entry = self.ledger.get(id).await?.ok_or_else(missing)?;
        let info = self.node.resume(id, wish.from).await?;
        let now = Micros::now();
        let window = wish.window.unwrap_or(entry.lasting.timeout);
        entry.running = true;
        entry.epoch = info.epoch;
        entry.started_at = now;
        entry.end_at = window.end(now, now, self.config.longest);
        entry.doomed_at = None;
        self.ledger
            .started(id, entry.epoch, entry.started_at, entry.end_at)
            .await?;
        self.publish(&entry).await?;
        self.ends_changed.notify_one();
        Ok(entry)
    }

    /// Wakes a sandbox if it is paused, and sees that it has at least what is wished to live.
    pub(crate) async fn connect(&self, id: &SandboxId, wish: Wish) -> Result<Connected, Failure> {
        let _turn = self.turns.alone(id).await;
        match self.resume_in_turn(id, wish).await {
            Ok(entry) => Ok(Connected::Resumed(entry)),
            Err(Failure::Conflict(Conflict::AlreadyRunning(_))) => {
                if let Some(window) = wish.window {
                    match self.extend(id, window).await {
                        // The ledger may still have it paused when somebody's request has just woken it.
                        Ok(()) | Err(Failure::NotFound(_)) => {}
                        Err(failure) => return Err(failure),
                    }
                }
                Ok(Connected::Running(self.get(id).await?.entry))
            }
            Err(failure) => Err(failure),
        }
    }
}
