//! Calls that turn a sandbox from running to sleeping and back.

use std::time::SystemTime;

use pool_api::{
    EnterError, Epoch, IfPaused, PauseCause, PauseError, SandboxState, SnapshotScope, TakenSnapshot,
};
use tokio::{sync::oneshot, time::Instant};

use super::{Driver, Held, Own, Record, Reply};
use crate::{cause::Shared, host::blocking, lifecycle::Input};

type Entered = oneshot::Sender<Result<Held, EnterError>>;

impl Driver {
    pub(super) async fn enter(&mut self, wake: IfPaused, asked: Instant, reply: Entered) {
        // One that falls asleep is asleep to those who may not wake it.
        let asleep = match self.life.state() {
            SandboxState::Paused => wake == IfPaused::Fail || self.keeps_filesystem(),
            SandboxState::Pausing => {
                wake == IfPaused::Fail || self.keeping == SnapshotScope::DiskOnly
            }
            _ => false,
        };
        if asleep {
            let id = self.spec.id.clone();
            // Whoever asked may have gone.
            drop(reply.send(Err(EnterError::Paused(id))));
            return;
        }
        self.wake(SnapshotScope::Full, asked, reply).await;
    }

    fn keeps_filesystem(&self) -> bool {
        let keep = self.own.as_ref().map(|own| own.keep);
        keep == Some(SnapshotScope::DiskOnly)
    }

    pub(super) async fn pause(
        &mut self,
        epoch: Option<Epoch>,
        keep: SnapshotScope,
        cause: PauseCause,
        reply: oneshot::Sender<Result<TakenSnapshot, PauseError>>,
    ) {
        let state = self.life.state();
        if epoch.is_some_and(|epoch| epoch != self.epoch()) {
            let conflict = PauseError::Conflict {
                id: self.spec.id.clone(),
                state,
            };
            // Whoever asked may have gone.
            drop(reply.send(Err(conflict)));
            return;
        }
        if state == SandboxState::Running {
            self.keeping = keep;
            self.pause_cause = cause;
        }
        let waiter = self.wait(Reply::Pause(reply));
        self.feed(Input::Pause(waiter)).await;
    }

    /// Wakes it from this of its snapshot; who asked first decides.
    pub(super) async fn wake(&mut self, from: SnapshotScope, asked: Instant, reply: Entered) {
        let asleep = matches!(
            self.life.state(),
            SandboxState::Paused | SandboxState::Pausing
        );
        if asleep && !self.life.is_awaited() {
            self.from = from;
        }
        let waiter = self.wait(Reply::Enter { asked, reply });
        self.feed(Input::Wake(waiter)).await;
    }

    /// Makes the snapshot what the sandbox wakes from, on disk first, and wakes it.
    pub(super) async fn roll_back(&mut self, to: Own, asked: Instant, reply: Entered) {
        let state = self.life.state();
        let id = self.spec.id.clone();
        if !matches!(state, SandboxState::Running | SandboxState::Paused) {
            // Whoever asked may have gone.
            drop(reply.send(Err(EnterError::Transitioning { id, state })));
            return;
        }
        let record = self.record(&to);
        let home = self.home.clone();
        let saved = match blocking(move || home.save(&record)).await {
            Ok(saved) => saved.map_err(Shared::new),
            Err(interrupted) => Err(Shared::new(interrupted)),
        };
        if let Err(error) = saved {
            let source = error.cause();
            drop(reply.send(Err(EnterError::Failed { id, source })));
            return;
        }
        self.own = Some(to);
        self.from = SnapshotScope::Full;
        let waiter = self.wait(Reply::Enter { asked, reply });
        self.feed(Input::Rollback(waiter)).await;
        self.host.collect().await;
    }

    /// What is remembered of the sandbox when it wakes from `own`.
    fn record(&self, own: &Own) -> Record {
        let info = self.info.borrow().clone();
        Record {
            spec: (*self.spec).clone(),
            epoch: info.epoch,
            started_at: info.started_at,
            since: SystemTime::now(),
            resources: info.resources,
            snapshot: own.pin.id().clone(),
            keep: own.keep,
        }
    }
}
