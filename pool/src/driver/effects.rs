//! Effects of a sandbox's lifecycle, performed.

use std::sync::Arc;

use pool_api::SnapshotScope;
use snapshotter::Pin;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Driver,
    completions::{CaptureOutcome, Completion, Resumed, committed, frozen_after},
    replies::{Context, LastFailure},
};
use crate::{
    blocking::blocking,
    durable_file::Visible,
    fsfreeze::Frozen,
    lease::{LeaseTarget, PoolLease},
    lifecycle::{Effect, Input, Waiter, WakeSource},
    sandbox_dir::Record,
    shared_error::SharedError,
    snapshot::{RecordBuilder, resume_after_capture, take_snapshot},
    start::{StartInputs, start},
    start_plan::StartPlan,
};

impl Driver {
    /// Performs one effect; returns the input that it leads to at once.
    pub(super) async fn perform(&mut self, effect: Effect<Pin>) -> Option<Input<Pin>> {
        match effect {
            Effect::OpenGate => self.open_gate(),
            Effect::ShutGate => self.shut_gate(),
            Effect::Start { plan, snapshot } => self.spawn_start(plan, snapshot),
            Effect::Resume { .. } => return self.spawn_resume(),
            Effect::Snapshot { scope } => return self.spawn_snapshot(scope),
            Effect::Capture { scope } => return self.spawn_capture(scope),
            Effect::RecordRollback { waiter, target } => {
                return Some(self.record_rollback(waiter, target).await);
            }
            Effect::KillMachine => {
                if let Some(machine) = &self.machine {
                    machine.machine.kill().await;
                }
            }
            Effect::Release => self.release().await,
            Effect::Destroy => self.spawn_destroy(),
            Effect::Remove => self.remove().await,
            Effect::CollectGarbage => self.host.collect().await,
            Effect::Reply(waiters, reply) => {
                let info = self.info.borrow().clone();
                let grant = || {
                    let pass = self.gate.enter()?;
                    let target = self.target.read().clone()?;
                    Some(PoolLease::new(target, pass))
                };
                let context = Context {
                    info: &info,
                    grant: &grant,
                };
                for waiter in waiters {
                    self.replies.send(waiter, reply.clone(), &context);
                }
            }
            Effect::Notify(change) => self.notify(change),
            // `apply` replays.
            Effect::Replay(_) => {}
        }
        None
    }

    fn open_gate(&mut self) {
        let Some(machine) = &self.machine else {
            return;
        };
        let target = LeaseTarget {
            machine: Arc::clone(&machine.machine),
            epoch: self.lifecycle.epoch(),
            revoked: CancellationToken::new(),
        };
        *self.target.write() = Some(Arc::new(target));
        self.replies.gate_opened(Instant::now());
        self.gate.open();
    }

    pub(super) fn shut_gate(&mut self) {
        self.gate.shut();
        if let Some(target) = self.target.write().take() {
            target.revoked.cancel();
        }
    }

    pub(super) fn spawn_start(&mut self, plan: StartPlan, snapshot: Pin) {
        self.replies.start_began(Instant::now());
        let inputs = StartInputs {
            plan,
            snapshot,
            spec: Arc::clone(&self.spec),
            epoch: self.lifecycle.epoch(),
            resources: self.info.borrow().resources,
            dir: self.dir.clone(),
            kept: self.kept.as_ref().map_or(0, |share| share.memory),
        };
        let host = Arc::clone(&self.host);
        let task = async move { Completion::Started(Box::new(start(&host, inputs).await)) };
        self.starting = Some(self.tasks.spawn(task));
    }

    fn spawn_resume(&mut self) -> Option<Input<Pin>> {
        let began = Instant::now();
        self.replies.start_began(began);
        let Some(running) = &mut self.machine else {
            return Some(self.no_machine(Input::StartFailed));
        };
        let machine = Arc::clone(&running.machine);
        let missing = running.lineage.missing_layers();
        let frozen = std::mem::replace(&mut running.frozen, Frozen::No);
        let (host, dir) = (Arc::clone(&self.host), self.dir.clone());
        self.starting = Some(self.tasks.spawn(async move {
            // The error was logged, and the machine killed.
            let resumed = resume_after_capture(&host, &machine, &dir, missing, frozen).await;
            Completion::Resumed(resumed.ok().map(|top_files| Resumed {
                top_files,
                elapsed: began.elapsed(),
            }))
        }));
        None
    }

    fn spawn_snapshot(&mut self, scope: SnapshotScope) -> Option<Input<Pin>> {
        let Some(running) = &self.machine else {
            return Some(self.no_machine(Input::SnapshotFailed));
        };
        let machine = Arc::clone(&running.machine);
        let source = running.capture_source();
        let record = Some((self.dir.clone(), self.record_builder(scope)));
        let (host, gate) = (Arc::clone(&self.host), Arc::clone(&self.gate));
        self.tasks.spawn(async move {
            if timeout(host.config.drain_timeout, gate.emptied())
                .await
                .is_err()
            {
                warn!("leases were not returned in time; pausing without them");
            }
            let taken = take_snapshot(&host, &*machine, scope, source, record).await;
            Completion::Snapshotted {
                scope,
                taken: Box::new(taken),
            }
        });
        None
    }

    /// Captures the running machine and resumes it.
    fn spawn_capture(&mut self, scope: SnapshotScope) -> Option<Input<Pin>> {
        let Some(running) = &self.machine else {
            return Some(self.no_machine(Input::CaptureFailed));
        };
        let machine = Arc::clone(&running.machine);
        let source = running.capture_source();
        let mut lineage = running.lineage.clone();
        let dir = self.dir.clone();
        // A crash falls back to memory only.
        let record =
            (scope == SnapshotScope::Full).then(|| (dir.clone(), self.record_builder(scope)));
        let host = Arc::clone(&self.host);
        self.tasks.spawn(async move {
            let taken = take_snapshot(&host, &*machine, scope, source, record).await;
            if let Some(committed) = committed(&taken) {
                lineage.advance(committed);
            }
            let missing = lineage.missing_layers();
            let frozen = frozen_after(scope, &taken);
            // A machine that cannot resume is killed, and its exit is the next input.
            let resumed = resume_after_capture(&host, &machine, &dir, missing, frozen).await;
            Completion::Captured(Box::new(CaptureOutcome {
                taken,
                top_files: resumed.unwrap_or_default(),
            }))
        });
        None
    }

    /// Makes a rollback's target durable.
    async fn record_rollback(&mut self, waiter: Waiter, target: WakeSource<Pin>) -> Input<Pin> {
        let record = self.record_builder(target.scope)(target.snapshot.id().clone());
        let dir = self.dir.clone();
        let saved = match blocking(move || dir.save(&record)).await {
            Ok(Err(error)) => {
                if error.visible == Visible::Maybe {
                    self.maybe_recorded.push(target.snapshot.clone());
                }
                Err(SharedError::new(error))
            }
            Ok(Ok(())) => Ok(()),
            Err(interrupted) => Err(SharedError::new(interrupted)),
        };
        match saved {
            Ok(()) => {
                self.maybe_recorded.clear();
                Input::RollbackRecorded { waiter, target }
            }
            Err(error) => {
                warn!(error = %error_chain::chain(&error), "failed to record rollback");
                self.replies.set_failure(LastFailure::Failed(error));
                Input::RollbackNotRecorded(waiter)
            }
        }
    }

    /// Returns a function from a snapshot's id to the record of the sandbox that wakes from it.
    fn record_builder(&self, scope: SnapshotScope) -> RecordBuilder {
        let info = self.info.borrow().clone();
        let spec = (*self.spec).clone();
        Box::new(move |snapshot| {
            let source = (snapshot, scope);
            Record::new(spec, info.epoch, info.started_at, info.resources, source)
        })
    }

    /// Destroys the machine, whose exit is no input any more.
    async fn release(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.destroy().await;
        }
    }

    fn spawn_destroy(&mut self) {
        if let Some(starting) = self.starting.take() {
            starting.abort();
        }
        let machine = self.machine.take();
        let (gate, drain_timeout) = (Arc::clone(&self.gate), self.host.config.drain_timeout);
        self.tasks.spawn(async move {
            if timeout(drain_timeout, gate.emptied()).await.is_err() {
                warn!("leases were not returned in time; destroying the machine under them");
            }
            if let Some(machine) = machine {
                machine.destroy().await;
            }
            Completion::Destroyed
        });
    }

    /// Removes the sandbox; nothing of it is left on return.
    async fn remove(&mut self) {
        self.release().await;
        let dir = self.dir.clone();
        if let Ok(Err(error)) = blocking(move || dir.remove()).await {
            warn!(error = %error_chain::chain(&error), "failed to remove sandbox directory");
        }
        // The id is free from here on.
        drop(self.registration.take());
        self.host.collect().await;
    }

    /// Records an internal error: an effect needs a machine and there is none.
    fn no_machine(&mut self, input: Input<Pin>) -> Input<Pin> {
        self.replies
            .set_failure(LastFailure::Failed(SharedError::new(NoMachine)));
        input
    }
}

/// A running sandbox without a machine.
#[derive(Debug, thiserror::Error)]
#[error("internal error: sandbox has no machine")]
struct NoMachine;
