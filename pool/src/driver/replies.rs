//! Replies to the callers of a sandbox.
//!
//! [`Replies`] holds each caller's channel and the facts that replies need beside the lifecycle's: the last failure and
//! the times of the last start.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use pool_api::{
    EnterError, FailedPart, PauseError, ResumeError, RollbackError, SandboxId, SandboxInfo,
    SandboxState, Stage, Start, TakenSnapshot, WakeReport,
};
use snapshotter::Pin;
use tokio::{sync::oneshot, time::Instant};
use vmm_api::Exit;

use crate::{
    capacity::NoRoom,
    lease::PoolLease,
    lifecycle::{Reply, Waiter, WakeSource},
    shared_error::SharedError,
    start::StartError,
};

/// A caller that waits, by the call.
#[derive(Debug)]
pub(super) enum Pending {
    Enter {
        asked: Instant,
        reply: oneshot::Sender<Result<PoolLease, EnterError>>,
    },
    Resume {
        asked: Instant,
        reply: oneshot::Sender<Result<PoolLease, ResumeError>>,
    },
    Rollback {
        asked: Instant,
        reply: oneshot::Sender<Result<PoolLease, RollbackError>>,
    },
    Pause(oneshot::Sender<Result<TakenSnapshot, PauseError>>),
    Capture(oneshot::Sender<Result<Pin, CaptureRejected>>),
    Kill(oneshot::Sender<()>),
}

/// The reason why a live capture has no snapshot.
#[derive(Debug)]
pub(crate) enum CaptureRejected {
    /// The sandbox is paused at this snapshot.
    Paused(WakeSource<Pin>),
    /// The sandbox is in a state that does not allow it.
    State(SandboxState),
    /// The sandbox has stopped.
    Gone,
    /// The capture failed.
    Failed(SharedError),
}

/// The cause of the last failed start, pause or machine.
#[derive(Debug, Clone)]
pub(super) enum LastFailure {
    NoRoom(NoRoom),
    Failed(SharedError),
    Start {
        part: FailedPart,
        error: SharedError,
    },
    MachineEnded(Exit),
}

#[derive(Debug, thiserror::Error)]
#[error("the machine ended: {0}")]
struct MachineEnded(Exit);

/// A failure without a recorded cause.
#[derive(Debug, thiserror::Error)]
#[error("unknown error")]
struct Unknown;

/// The sandbox as replies describe it.
pub(super) struct Context<'a> {
    pub(super) info: &'a SandboxInfo,
    /// Grants a lease; `None` when the gate is shut.
    pub(super) grant: &'a (dyn Fn() -> Option<PoolLease> + Sync),
}

/// The callers that wait, and the facts for their replies.
#[derive(Debug)]
pub(super) struct Replies {
    pending: HashMap<Waiter, Pending>,
    next: Waiter,
    last_failure: Option<LastFailure>,
    capture_failure: Option<SharedError>,
    start_began: Instant,
    gate_opened: Instant,
    /// The call of the first caller that waited for the last start.
    first_asked: Option<Instant>,
    report: WakeReport,
}

// === impl Pending ===

impl Pending {
    /// Returns the time of a call that waits for a start.
    fn asked(&self) -> Option<Instant> {
        match self {
            Self::Enter { asked, .. }
            | Self::Resume { asked, .. }
            | Self::Rollback { asked, .. } => Some(*asked),
            Self::Pause(_) | Self::Capture(_) | Self::Kill(_) => None,
        }
    }
}

// === impl LastFailure ===

impl LastFailure {
    pub(super) fn of_start(error: StartError) -> Self {
        match error {
            StartError::NoRoom(no_room) => Self::NoRoom(no_room),
            error => Self::Start {
                part: error.failed_part(),
                error: SharedError::new(error),
            },
        }
    }

    pub(super) fn text(&self) -> String {
        error_chain::chain(&self.shared()).to_string()
    }

    fn shared(&self) -> SharedError {
        match self {
            Self::NoRoom(no_room) => SharedError::new(no_room.clone()),
            Self::Failed(error) | Self::Start { error, .. } => error.clone(),
            Self::MachineEnded(exit) => SharedError::new(MachineEnded(exit.clone())),
        }
    }
}

// === impl Replies ===

impl Replies {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pending: HashMap::new(),
            next: 0,
            last_failure: None,
            capture_failure: None,
            start_began: now,
            gate_opened: now,
            first_asked: None,
            report: WakeReport {
                start: Start::Fork,
                stages: Vec::new(),
            },
        }
    }

    pub(super) fn add(&mut self, pending: Pending) -> Waiter {
        let waiter = self.next;
        self.next += 1;
        self.pending.insert(waiter, pending);
        waiter
    }

    pub(super) fn start_began(&mut self, at: Instant) {
        self.start_began = at;
    }

    /// Records the end of a start. Its callers have not been answered yet.
    pub(super) fn gate_opened(&mut self, at: Instant) {
        self.gate_opened = at;
        self.first_asked = self.pending.values().filter_map(Pending::asked).min();
    }

    /// Records the report of a new machine.
    pub(super) fn start_succeeded(&mut self, report: WakeReport) {
        self.report = report;
        self.last_failure = None;
    }

    /// Records the report of a resumed machine.
    pub(super) fn start_reported(&mut self, report: WakeReport) {
        self.report = report;
    }

    /// Returns the report of the last start, with the queue time of its first caller.
    pub(super) fn start_report(&self) -> WakeReport {
        match self.first_asked {
            Some(asked) => self.report_since(asked),
            None => self.report.clone(),
        }
    }

    pub(super) fn set_failure(&mut self, failure: LastFailure) {
        self.last_failure = Some(failure);
    }

    pub(super) fn clear_failure(&mut self) {
        self.last_failure = None;
    }

    pub(super) fn set_capture_failure(&mut self, error: SharedError) {
        self.capture_failure = Some(error);
    }

    pub(super) fn last_failure(&self) -> Option<String> {
        self.last_failure.as_ref().map(LastFailure::text)
    }

    /// Replies to one caller. A caller that left drops its lease by that.
    pub(super) fn send(&mut self, waiter: Waiter, outcome: Reply<Pin>, context: &Context<'_>) {
        match self.pending.remove(&waiter) {
            Some(Pending::Enter { asked, reply }) => {
                drop(reply.send(self.lease(asked, &outcome, context)));
            }
            Some(Pending::Resume { asked, reply }) => {
                drop(reply.send(match outcome {
                    Reply::AlreadyRunning => {
                        Err(ResumeError::AlreadyRunning(context.info.id.clone()))
                    }
                    outcome => self.lease(asked, &outcome, context).map_err(Into::into),
                }));
            }
            Some(Pending::Rollback { asked, reply }) => {
                let lease = self.lease(asked, &outcome, context);
                let id = &context.info.id;
                drop(reply.send(lease.map_err(|error| rollback_error(id, error))));
            }
            Some(Pending::Pause(reply)) => drop(reply.send(self.paused(&outcome, context.info))),
            Some(Pending::Capture(reply)) => drop(reply.send(self.captured(outcome))),
            Some(Pending::Kill(reply)) => {
                let _received = reply.send(());
            }
            None => {}
        }
    }

    fn lease(
        &self,
        asked: Instant,
        outcome: &Reply<Pin>,
        context: &Context<'_>,
    ) -> Result<PoolLease, EnterError> {
        let id = context.info.id.clone();
        match outcome {
            Reply::Running => match (context.grant)() {
                Some(lease) => Ok(lease.with_report(self.report_for(asked))),
                None => Err(EnterError::Transitioning {
                    id,
                    state: context.info.state,
                }),
            },
            Reply::NotWoken => Err(EnterError::Paused(id)),
            Reply::Conflict(state) => Err(EnterError::Transitioning { id, state: *state }),
            Reply::Gone => Err(EnterError::NotFound(id)),
            _ => Err(match &self.last_failure {
                Some(LastFailure::NoRoom(NoRoom(diagnostic))) => EnterError::NoRoom {
                    diagnostic: diagnostic.clone(),
                },
                _ => EnterError::Failed {
                    id,
                    part: self.failed_part(),
                    source: self.failure().cause(),
                },
            }),
        }
    }

    /// Returns the time since which the sandbox runs.
    pub(super) fn running_since(&self) -> Instant {
        self.gate_opened
    }

    /// Reports the start that a caller waited for; `None` when the sandbox ran before it asked.
    fn report_for(&self, asked: Instant) -> Option<WakeReport> {
        (asked <= self.gate_opened).then(|| self.report_since(asked))
    }

    fn report_since(&self, asked: Instant) -> WakeReport {
        let mut report = self.report.clone();
        let queued = self.start_began.saturating_duration_since(asked);
        match report.stages.first_mut() {
            // The start itself waited as well.
            Some((Stage::Queue, waited)) => *waited += queued,
            _ => report.stages.insert(0, (Stage::Queue, queued)),
        }
        report
    }

    fn paused(
        &self,
        outcome: &Reply<Pin>,
        info: &SandboxInfo,
    ) -> Result<TakenSnapshot, PauseError> {
        let id = info.id.clone();
        match (outcome, &info.snapshot) {
            (Reply::Paused, Some(snapshot)) => Ok(TakenSnapshot {
                id: snapshot.clone(),
                scope: info.scope,
            }),
            (Reply::AlreadyPaused, _) => Err(PauseError::AlreadyPaused {
                id,
                epoch: info.epoch,
                since: info.since,
                scope: info.scope,
            }),
            (Reply::Gone, _) => Err(PauseError::NotFound(id)),
            (Reply::Conflict(state), _) => Err(PauseError::Conflict { id, state: *state }),
            _ => Err(PauseError::Failed {
                id,
                source: self.failure().cause(),
            }),
        }
    }

    fn captured(&mut self, outcome: Reply<Pin>) -> Result<Pin, CaptureRejected> {
        Err(match outcome {
            Reply::Captured(snapshot) => return Ok(snapshot),
            Reply::PausedAt(source) => CaptureRejected::Paused(source),
            Reply::Conflict(state) => CaptureRejected::State(state),
            Reply::Gone => CaptureRejected::Gone,
            _ => {
                let failure = self.capture_failure.take();
                CaptureRejected::Failed(failure.unwrap_or_else(|| SharedError::new(Unknown)))
            }
        })
    }

    fn failed_part(&self) -> FailedPart {
        match &self.last_failure {
            Some(LastFailure::Start { part, .. }) => *part,
            _ => FailedPart::Host,
        }
    }

    fn failure(&self) -> SharedError {
        self.last_failure
            .as_ref()
            .map_or_else(|| SharedError::new(Unknown), LastFailure::shared)
    }
}

fn rollback_error(id: &SandboxId, error: EnterError) -> RollbackError {
    match error {
        EnterError::NotFound(id) => RollbackError::NotFound(id),
        EnterError::Transitioning { id, state } => RollbackError::Conflict { id, state },
        EnterError::Failed { id, part, source } => RollbackError::Failed { id, part, source },
        other => RollbackError::Failed {
            id: id.clone(),
            part: FailedPart::Host,
            source: other.into(),
        },
    }
}
