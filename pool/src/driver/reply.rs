//! Answering those who wait.

use pool_api::{EnterError, PauseError, SandboxId, SandboxState, TakenSnapshot};
use tokio::{sync::oneshot, time::Instant};
use vmm_api::Exit;

use super::{Driver, Held, Stage, WakeReport};
use crate::{
    cause::Shared,
    lifecycle::{Answer, Waiter},
    start::StartError,
};

/// Who waits, and for what.
#[derive(Debug)]
pub(super) enum Reply {
    Enter {
        asked: Instant,
        reply: oneshot::Sender<Result<Held, EnterError>>,
    },
    Pause(oneshot::Sender<Result<TakenSnapshot, PauseError>>),
    Kill(oneshot::Sender<()>),
}

/// Why the last start, pause or machine failed.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    NoRoom(String),
    Failed(Shared),
    Ended(Exit),
}

/// A machine that ended while somebody waited for it.
#[derive(Debug, thiserror::Error)]
#[error("the machine ended: {0}")]
struct Ended(Exit);

/// Nobody wrote down why.
#[derive(Debug, thiserror::Error)]
#[error("no reason is known")]
struct Unknown;

// === impl Trouble ===

impl Trouble {
    pub(super) fn of_start(error: StartError) -> Self {
        match error {
            StartError::NoRoom(room) => Self::NoRoom(room.0),
            error => Self::Failed(Shared::new(error)),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::NoRoom(diagnostic) => format!("no room on this host: {diagnostic}"),
            Self::Failed(error) => error.chain(),
            Self::Ended(exit) => Ended(exit.clone()).to_string(),
        }
    }

    fn shared(&self) -> Shared {
        match self {
            Self::NoRoom(diagnostic) => Shared::new(crate::capacity::NoRoom(diagnostic.clone())),
            Self::Failed(error) => error.clone(),
            Self::Ended(exit) => Shared::new(Ended(exit.clone())),
        }
    }

    fn enter_error(&self, id: SandboxId) -> EnterError {
        match self {
            Self::NoRoom(diagnostic) => EnterError::NoRoom {
                diagnostic: diagnostic.clone(),
            },
            other => EnterError::Failed {
                id,
                source: other.shared().cause(),
            },
        }
    }
}

// === impl Driver ===

impl Driver {
    pub(super) fn wait(&mut self, reply: Reply) -> Waiter {
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        self.replies.insert(waiter, reply);
        waiter
    }

    pub(super) fn answer(&mut self, waiter: Waiter, answer: Answer) {
        // A dropped reply means that whoever asked has gone; an unused lease is given back by that.
        match self.replies.remove(&waiter) {
            Some(Reply::Enter { asked, reply }) => drop(reply.send(self.let_in(asked, answer))),
            Some(Reply::Pause(reply)) => drop(reply.send(self.paused(answer))),
            Some(Reply::Kill(reply)) => {
                let _heard = reply.send(());
            }
            None => {}
        }
    }

    fn let_in(&self, asked: Instant, answer: Answer) -> Result<Held, EnterError> {
        let id = self.spec.id.clone();
        match answer {
            Answer::Running => {
                let pass = self.gate.enter();
                let inhabited = self.inhabited.read().clone();
                match (pass, inhabited) {
                    (Some(pass), Some(inhabited)) => Ok(Held {
                        inhabited,
                        report: self.report_for(asked),
                        _pass: pass,
                    }),
                    _ => Err(EnterError::Transitioning {
                        id,
                        state: self.life.state(),
                    }),
                }
            }
            Answer::Conflict => Err(EnterError::Transitioning {
                id,
                state: SandboxState::Stopping,
            }),
            Answer::Gone => Err(EnterError::NotFound(id)),
            _ => Err(match &self.trouble {
                Some(trouble) => trouble.enter_error(id),
                None => EnterError::Failed {
                    id,
                    source: Box::new(Unknown),
                },
            }),
        }
    }

    /// What a caller who asked then waited for; nothing when the sandbox ran already.
    fn report_for(&self, asked: Instant) -> Option<WakeReport> {
        let mut report = self.report.clone().filter(|_| asked <= self.ready)?;
        report.stages.insert(
            0,
            (Stage::Queue, self.began.saturating_duration_since(asked)),
        );
        Some(report)
    }

    fn paused(&self, answer: Answer) -> Result<TakenSnapshot, PauseError> {
        let id = self.spec.id.clone();
        match (answer, &self.own) {
            (Answer::Paused, Some(own)) => Ok(TakenSnapshot {
                id: own.pin.id().clone(),
                scope: own.keep,
            }),
            (Answer::AlreadyPaused, _) => Err({
                let info = self.info.borrow();
                PauseError::AlreadyPaused {
                    id,
                    epoch: info.epoch,
                    since: info.since,
                    scope: info.scope,
                }
            }),
            (Answer::Gone, _) => Err(PauseError::NotFound(id)),
            (Answer::Conflict | Answer::Running, _) => Err(PauseError::Conflict {
                id,
                state: self.life.state(),
            }),
            _ => {
                let cause = self
                    .trouble
                    .as_ref()
                    .map_or_else(|| Shared::new(Unknown), Trouble::shared);
                Err(PauseError::Failed {
                    id,
                    source: cause.cause(),
                })
            }
        }
    }
}
