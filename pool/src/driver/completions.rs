//! Completions of a sandbox's tasks and signals of its machine, as inputs of its lifecycle.

use std::time::Duration;

use pool_api::{Start, WakeReport};
use snapshotter::{Committed, Damage};
use tokio::task::JoinError;
use tracing::{error, warn};
use vmm_api::Exit;

use super::{Driver, replies::LastFailure};
use crate::{
    lifecycle::Input,
    shared_error::SharedError,
    snapshot::SnapshotError,
    start::{StartError, Started},
};

/// The result of a task.
#[derive(Debug)]
pub(super) enum Completion {
    Started(Box<Result<Started, StartError>>),
    /// A stopped machine resumed after this long, or was killed.
    Resumed(Option<Duration>),
    Snapshotted(Box<Result<Committed, SnapshotError>>),
    /// A live capture; the machine has new top layers where its disks changed.
    Captured(Box<Result<Committed, SnapshotError>>),
    Destroyed,
}

impl Driver {
    pub(super) async fn complete(&mut self, completion: Result<Completion, JoinError>) {
        match completion {
            Ok(Completion::Started(result)) => self.started(*result).await,
            Ok(Completion::Resumed(elapsed)) => self.resumed(elapsed).await,
            Ok(Completion::Snapshotted(result)) => self.snapshotted(*result).await,
            Ok(Completion::Captured(result)) => self.captured(*result).await,
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
            Ok(Started { machine, report }) => {
                self.machine = Some(machine);
                self.replies.start_succeeded(report);
                self.apply(Input::Started).await;
            }
            Err(error) => {
                let failure = LastFailure::of_start(error);
                warn!(error = failure.text(), "failed to start sandbox");
                self.replies.set_failure(failure);
                self.apply(Input::StartFailed).await;
            }
        }
    }

    async fn resumed(&mut self, elapsed: Option<Duration>) {
        self.starting = None;
        let input = match elapsed {
            Some(elapsed) => {
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

    async fn snapshotted(&mut self, result: Result<Committed, SnapshotError>) {
        match result {
            Ok(committed) => {
                if let Some(machine) = &mut self.machine {
                    machine.lineage.advance(&committed);
                }
                self.replies.clear_failure();
                self.apply(Input::Snapshotted(committed.pin)).await;
            }
            Err(error) => {
                warn!(error = %error_chain::chain(&error), "failed to pause sandbox");
                let failure = LastFailure::Failed(SharedError::new(error));
                self.replies.set_failure(failure);
                self.apply(Input::SnapshotFailed).await;
            }
        }
    }

    async fn captured(&mut self, result: Result<Committed, SnapshotError>) {
        match result {
            Ok(committed) => {
                if let Some(machine) = &mut self.machine {
                    machine.lineage.advance(&committed);
                    // The task replaced the top layers.
                    machine.lineage.set_top_layers_current();
                }
                self.apply(Input::Captured(committed.pin)).await;
            }
            Err(error) => {
                warn!(error = %error_chain::chain(&error), "failed to capture running sandbox");
                self.replies.set_capture_failure(SharedError::new(error));
                self.apply(Input::CaptureFailed).await;
            }
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
