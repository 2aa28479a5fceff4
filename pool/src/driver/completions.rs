//! Completions of a sandbox's tasks and signals of its machine, as inputs of its lifecycle.

use std::{sync::Arc, time::Duration};

use pool_api::{SnapshotScope, Start, WakeReport};
use snapshotter::{Committed, Damage};
use tokio::{task::JoinError, time::Instant};
use tracing::{error, warn};
use vmm_api::Exit;

use super::{Driver, replies::LastFailure};
use crate::{
    fsfreeze::Frozen,
    lifecycle::Input,
    shared_error::SharedError,
    snapshot::NotTaken,
    start::{StartError, Started},
    top_layer::TopFile,
};

/// The result of a task.
#[derive(Debug)]
pub(super) enum Completion {
    Started(Box<Result<Started, StartError>>),
    /// A stopped machine resumed, or was killed.
    Resumed(Option<Resumed>),
    Snapshotted {
        scope: SnapshotScope,
        taken: Box<Taken>,
    },
    Captured(Box<CaptureOutcome>),
    Destroyed,
}

type Taken = Result<Committed, NotTaken>;

/// A stopped machine that resumed.
#[derive(Debug)]
pub(super) struct Resumed {
    /// Its new top layers, if it needed some.
    pub(super) top_files: Vec<TopFile>,
    /// The duration of the resume.
    pub(super) elapsed: Duration,
}

/// The result of a live capture. The machine resumed, or was killed.
#[derive(Debug)]
pub(super) struct CaptureOutcome {
    pub(super) taken: Taken,
    /// Its new top layers, if it needed some.
    pub(super) top_files: Vec<TopFile>,
}

/// Returns the snapshot that exists, recorded or not.
pub(super) fn committed(taken: &Taken) -> Option<&Committed> {
    match taken {
        Ok(committed) => Some(committed),
        Err(failed) => failed.committed.as_deref(),
    }
}

/// Returns whether a snapshot of this scope left the filesystem frozen.
pub(super) fn frozen_after(scope: SnapshotScope, taken: &Taken) -> Frozen {
    match (scope, taken) {
        (SnapshotScope::Full, _) => Frozen::No,
        (SnapshotScope::DiskOnly, Ok(_)) => Frozen::Maybe,
        (SnapshotScope::DiskOnly, Err(failed)) => failed.leaves_frozen(),
    }
}

impl Driver {
    pub(super) async fn complete(&mut self, completion: Result<Completion, JoinError>) {
        match completion {
            Ok(Completion::Started(result)) => self.started(*result).await,
            Ok(Completion::Resumed(resumed)) => self.resumed(resumed).await,
            Ok(Completion::Snapshotted { scope, taken }) => self.snapshotted(scope, *taken).await,
            Ok(Completion::Captured(outcome)) => self.captured(*outcome).await,
            Ok(Completion::Destroyed) => {}
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                error!(error = %error_chain::chain(&error), "sandbox task panicked");
                self.starting = None;
                self.apply(Input::TaskPanicked).await;
            }
        }
        if self.tasks.is_empty() {
            self.apply(Input::TasksEnded).await;
        }
    }

    async fn started(&mut self, result: Result<Started, StartError>) {
        self.starting = None;
        match result {
            Ok(started) => {
                let Started {
                    machine,
                    report,
                    permit,
                    guest_init,
                } = started;
                let machine = self.machine.insert(machine);
                self.kept
                    .get_or_insert_with(|| machine.reservation.split_kept());
                self.wake_backoff.succeeded();
                self.replies.start_succeeded(report);
                self.apply(Input::Started).await;
                // The requests that waited are in the gate now.
                let gate = Arc::clone(&self.gate);
                tokio::spawn(permit.hold_for_first_requests(gate, guest_init));
            }
            Err(error) => {
                let failure = LastFailure::of_start(error);
                warn!(error = failure.text(), "failed to start sandbox");
                if !matches!(failure, LastFailure::NoRoom(_)) {
                    self.wake_backoff.failed(Instant::now());
                }
                self.replies.set_failure(failure);
                self.apply(Input::StartFailed).await;
            }
        }
    }

    async fn resumed(&mut self, resumed: Option<Resumed>) {
        self.starting = None;
        let input = match resumed {
            Some(Resumed { top_files, elapsed }) => {
                if let Some(machine) = &mut self.machine {
                    machine.lineage.replace_top_layers(top_files);
                }
                self.replies.start_reported(WakeReport {
                    start: Start::Unpause,
                    stages: vec![(pool_api::Stage::Load, elapsed)],
                });
                Input::Started
            }
            None => Input::StartFailed,
        };
        self.apply(input).await;
    }

    async fn snapshotted(&mut self, scope: SnapshotScope, taken: Taken) {
        if let Some(machine) = &mut self.machine {
            machine.frozen = frozen_after(scope, &taken);
        }
        self.took_snapshot(&taken);
        match taken {
            Ok(committed) => {
                self.maybe_recorded.clear();
                self.pause_backoff.succeeded();
                self.replies.clear_failure();
                self.apply(Input::Snapshotted(committed.pin)).await;
            }
            Err(NotTaken { error, .. }) => {
                warn!(error = %error_chain::chain(&error), "failed to pause sandbox");
                self.pause_backoff.failed(Instant::now());
                let failure = LastFailure::Failed(SharedError::new(error));
                self.replies.set_failure(failure);
                self.apply(Input::SnapshotFailed).await;
            }
        }
    }

    async fn captured(&mut self, outcome: CaptureOutcome) {
        let CaptureOutcome { taken, top_files } = outcome;
        self.took_snapshot(&taken);
        if let Some(machine) = &mut self.machine {
            machine.lineage.replace_top_layers(top_files);
        }
        match taken {
            Ok(committed) => self.apply(Input::Captured(committed.pin)).await,
            Err(NotTaken { error, .. }) => {
                warn!(error = %error_chain::chain(&error), "failed to capture running sandbox");
                self.replies.set_capture_failure(SharedError::new(error));
                self.apply(Input::CaptureFailed).await;
            }
        }
    }

    /// Moves the machine onto the layers of a snapshot that exists, recorded or not: it has taken the top layers over.
    fn took_snapshot(&mut self, taken: &Taken) {
        if let (Some(machine), Some(committed)) = (&mut self.machine, committed(taken)) {
            machine.lineage.advance(committed);
        }
        if let Err(failed) = taken {
            self.maybe_recorded.extend(failed.maybe_recorded());
        }
    }

    pub(super) async fn machine_exited(&mut self, exit: Exit) {
        warn!(%exit, "machine exited");
        self.replies.set_failure(LastFailure::MachineEnded(exit));
        self.apply(Input::Exited).await;
    }

    /// Ends a machine that would wait for the damaged page without end.
    pub(super) async fn memory_damaged(&mut self, damage: Damage) {
        error!(error = %error_chain::chain(&damage), "guest memory is damaged");
        let error = SharedError::new(StartError::Damaged(damage));
        self.replies.set_failure(LastFailure::Failed(error));
        self.apply(Input::Damaged).await;
    }
}
