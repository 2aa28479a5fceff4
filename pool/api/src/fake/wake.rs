//! How callers are let into a fake sandbox, and how it wakes for them.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Fake, WakeScript, cause, life::Life, lock};
use crate::{EnterError, Happening, Keep, SandboxId, SandboxState, Start};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A request that may not wake it.
    Visitor,
    /// A request that may, when it has memory to wake to.
    Traffic,
    /// The API, and what is to be woken.
    Owner(Keep),
}

impl Who {
    fn wakes(self, keep: Keep) -> bool {
        match self {
            Self::Visitor => false,
            Self::Traffic => keep == Keep::Full,
            Self::Owner(_) => true,
        }
    }

    fn start(self, keep: Keep) -> Start {
        if keep == Keep::Filesystem || self == Self::Owner(Keep::Filesystem) {
            Start::Boot
        } else {
            Start::Restore
        }
    }
}

/// A caller that waits.
pub(super) struct Waiting<'a>(&'a watch::Sender<u64>);

impl<'a> Waiting<'a> {
    pub(super) fn new(count: &'a watch::Sender<u64>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Fake {
    /// Returns once the sandbox runs, waking it if it sleeps and `who` may.
    pub(super) async fn let_in(
        &self,
        id: &SandboxId,
        who: Who,
    ) -> Result<Arc<watch::Sender<Life>>, EnterError> {
        let _waiting = Waiting::new(&self.0.entering);
        loop {
            let life = self
                .find(id)
                .ok_or_else(|| EnterError::NotFound(id.clone()))?;
            let mut begin = None;
            life.send_if_modified(|life| {
                let (state, keep) = (life.info.state, life.info.keep);
                if state == SandboxState::Paused && who.wakes(keep) {
                    life.info.state = SandboxState::Starting;
                    begin = Some(who.start(keep));
                }
                begin.is_some()
            });
            if let Some(start) = begin {
                // The wake goes on when its first caller gives up: others may be waiting.
                let (fake, id, sender) = (self.clone(), id.clone(), life.clone());
                let woken = tokio::spawn(async move { fake.wake(&id, &sender, start).await });
                match woken.await {
                    Ok(outcome) => outcome?,
                    Err(error) => {
                        return Err(EnterError::Failed {
                            id: life.borrow().info.id.clone(),
                            source: error.into(),
                        });
                    }
                }
            }
            let (state, keep) = (life.borrow().info.state, life.borrow().info.keep);
            match state {
                SandboxState::Running => return Ok(life),
                SandboxState::Starting => {
                    let mut life = life.subscribe();
                    let started = life.wait_for(|life| life.info.state != SandboxState::Starting);
                    if started.await.is_err() {
                        return Err(EnterError::NotFound(id.clone()));
                    }
                }
                SandboxState::Paused | SandboxState::Pausing if !who.wakes(keep) => {
                    return Err(EnterError::Asleep(id.clone()));
                }
                SandboxState::Paused => {}
                SandboxState::Pausing | SandboxState::Stopping => {
                    return Err(EnterError::Transitioning {
                        id: id.clone(),
                        state,
                    });
                }
                SandboxState::Stopped(_) => return Err(EnterError::NotFound(id.clone())),
            }
        }
    }

    /// Finishes a wake of a paused sandbox, when it is not held.
    pub(super) async fn wake(
        &self,
        id: &SandboxId,
        life: &watch::Sender<Life>,
        start: Start,
    ) -> Result<(), EnterError> {
        self.0.wakes.send_modify(|wakes| *wakes += 1);
        let mut hold = self.0.hold.subscribe();
        if hold.wait_for(|hold| !hold).await.is_err() {
            return Err(EnterError::NotFound(id.clone()));
        }
        let script = lock(&self.0.script).next_wake.take();
        if let Some(script) = script {
            life.send_modify(|life| life.leave(SandboxState::Paused));
            return Err(match script {
                WakeScript::NoRoom => EnterError::NoRoom {
                    diagnostic: "memory".to_owned(),
                },
                WakeScript::Fails => EnterError::Failed {
                    id: id.clone(),
                    source: cause("scripted"),
                },
            });
        }
        life.send_modify(|life| life.begin(start));
        self.tell(&life.borrow().info, Happening::Started);
        Ok(())
    }
}
