//! What long effects come back with.

use pool_api::{SnapshotScope, Stage, Start};
use snapshotter::{Committed, Pin};
use tokio::{sync::oneshot, task::JoinError};
use tracing::{error, warn};

use super::{Driver, NotCaptured, Own, SandboxState, Trouble, WakeReport};
use crate::{
    cause::Shared,
    lifecycle::Input,
    pause::WriteError,
    start::{StartError, Started},
};

/// What a child has done.
#[derive(Debug)]
pub(super) enum Outcome {
    Started(Box<Result<Started, StartError>>),
    Unpaused(Result<(), ()>),
    Snapshotted(Box<Result<Committed, WriteError>>),
    Captured {
        written: Box<Result<Committed, WriteError>>,
        keep: SnapshotScope,
        reply: oneshot::Sender<Result<Pin, NotCaptured>>,
    },
    Destroyed,
}

impl Driver {
    pub(super) async fn child(&mut self, outcome: Result<Outcome, JoinError>) {
        match outcome {
            Ok(Outcome::Started(started)) => self.started(*started).await,
            Ok(Outcome::Unpaused(result)) => self.unpaused(result).await,
            Ok(Outcome::Snapshotted(written)) => self.snapshotted(*written).await,
            Ok(Outcome::Captured {
                written,
                keep,
                reply,
            }) => self.captured(*written, keep, reply).await,
            Ok(Outcome::Destroyed) => self.destroyed = true,
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                error!(%error, "a task of the sandbox panicked");
                self.panicked().await;
            }
        }
        // Not before everything that was under way has ended, too.
        if self.destroyed && self.children.is_empty() {
            self.destroyed = false;
            self.feed(Input::Destroyed).await;
        }
    }

    async fn started(&mut self, started: Result<Started, StartError>) {
        self.starting = None;
        if self.life.state() != SandboxState::Starting {
            // It was killed meanwhile.
            if let Ok(started) = started {
                started.live.end().await;
            }
            return;
        }
        match started {
            Ok(Started { live, report }) => {
                self.live = Some(live);
                self.report = Some(report);
                (self.exit_seen, self.moved, self.trouble) = (false, false, None);
                self.feed(Input::Started).await;
            }
            Err(error) => {
                let trouble = Trouble::of_start(error);
                warn!(error = trouble.text(), "the sandbox could not be started");
                self.trouble = Some(trouble);
                self.feed(Input::StartFailed).await;
            }
        }
    }

    async fn unpaused(&mut self, result: Result<(), ()>) {
        self.starting = None;
        if self.life.state() != SandboxState::Starting {
            return;
        }
        if result.is_ok() {
            let stages = vec![(Stage::Load, self.began.elapsed())];
            self.report = Some(WakeReport {
                start: Start::Unpause,
                stages,
            });
            self.feed(Input::Started).await;
        } else {
            self.release().await;
            self.feed(Input::StartFailed).await;
        }
    }

    async fn snapshotted(&mut self, written: Result<Committed, WriteError>) {
        if self.life.state() != SandboxState::Pausing {
            // It was killed meanwhile; the snapshot is dropped with the rest.
            return;
        }
        match written {
            Ok(committed) => {
                self.adopt(&committed, self.keeping);
                if self.exit_seen {
                    self.release().await;
                } else {
                    self.trouble = None;
                    self.end_what_boots().await;
                }
                self.feed(Input::Snapshotted).await;
                if self.life.state() == SandboxState::Starting && self.live.is_some() {
                    self.next_life();
                }
                self.host.collect().await;
            }
            Err(error) => {
                let trouble = Trouble::Failed(Shared::new(error));
                warn!(
                    error = trouble.text(),
                    "the sandbox could not be written down"
                );
                self.trouble = Some(trouble);
                if self.exit_seen {
                    self.release().await;
                }
                self.feed(Input::SnapshotFailed).await;
            }
        }
    }

    async fn captured(
        &mut self,
        written: Result<Committed, WriteError>,
        keep: SnapshotScope,
        reply: oneshot::Sender<Result<Pin, NotCaptured>>,
    ) {
        self.capturing = false;
        let running = self.life.state() == SandboxState::Running;
        let answer = match written {
            // What ended it meanwhile is why, whatever became of the capture.
            _ if !running => Err(NotCaptured::State(self.life.state(), None)),
            Ok(committed) => {
                match keep {
                    SnapshotScope::Full => self.adopt(&committed, keep),
                    SnapshotScope::DiskOnly => self.advance(&committed),
                }
                // Its tops were changed by the child.
                self.moved = false;
                if keep == SnapshotScope::Full {
                    self.feed(Input::Kept).await;
                }
                Ok(committed.pin)
            }
            Err(error) => {
                let error = Shared::new(error);
                warn!(
                    error = error.chain(),
                    "the running sandbox could not be captured"
                );
                Err(NotCaptured::Failed(error))
            }
        };
        drop(reply.send(answer));
        self.host.collect().await;
        // In the order in which they came; one that captures defers those behind it again.
        for command in std::mem::take(&mut self.deferred) {
            Box::pin(self.command(command)).await;
        }
    }

    /// A new snapshot is what the sandbox wakes from; the one before is let go.
    fn adopt(&mut self, committed: &Committed, keep: SnapshotScope) {
        self.advance(committed);
        self.own = Some(Own {
            pin: committed.pin.clone(),
            keep,
        });
    }

    /// The machine's disk lies on a new snapshot from now on.
    fn advance(&mut self, committed: &Committed) {
        if let Some(live) = &mut self.live {
            self.moved |= live.lineage.advance(committed);
        }
    }

    /// A machine that is to boot from its disk does not go on, even when somebody waits for it.
    async fn end_what_boots(&mut self) {
        if self.keeping == SnapshotScope::DiskOnly || self.from == SnapshotScope::DiskOnly {
            self.release().await;
            self.exit_seen = true;
            self.feed(Input::Exited).await;
        }
    }

    /// What a panicked child was doing is not known; the machine is not to be trusted.
    async fn panicked(&mut self) {
        self.starting = None;
        self.capturing = false;
        self.release().await;
        self.exit_seen = true;
        match self.life.state() {
            SandboxState::Starting => self.feed(Input::StartFailed).await,
            SandboxState::Running => self.feed(Input::Exited).await,
            SandboxState::Pausing => {
                self.feed(Input::Exited).await;
                self.feed(Input::SnapshotFailed).await;
            }
            SandboxState::Stopping => self.destroyed = true,
            SandboxState::Paused | SandboxState::Stopped(_) => {}
        }
    }
}
