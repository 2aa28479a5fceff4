//! The fake host's implementation of [`Node`].

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{
    Connections, FakeNode, RESOURCES, counter::Counted, lease::FakeLease, lock, scripted,
    wake::Caller,
};
use crate::{
    Broken, CreateError, EnterError, Epoch, Event, FailedPart, ForkError, ForkSpec, GuestMetrics,
    IfPaused, KillError, Lease, Node, Origin, PauseError, ReleaseError, ResumeError,
    RetainedSnapshot, RollbackError, SandboxId, SandboxInfo, SandboxSpec, SandboxState,
    SnapshotError, SnapshotId, SnapshotScope, Start, StartCause, StopReason, TakenSnapshot,
    TemplateError, TemplateInfo, TemplateName,
};

/// The console of guests without a scripted one.
const DEFAULT_CONSOLE: &str = "2026-11-22T01:35:11.872215Z booting\n2026-11-22T01:35:12.000001Z";

#[async_trait]
impl Node for FakeNode {
    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo, CreateError> {
        self.0.creates.send_modify(|creates| *creates += 1);
        // The sender lives as long as this host.
        drop(self.0.hold_creates.subscribe().wait_for(|hold| !hold).await);
        if lock(&self.0.script).no_room {
            return Err(CreateError::NoRoom {
                diagnostic: "memory".to_owned(),
            });
        }
        if let Origin::Template(name) = &spec.origin
            && !lock(&self.0.templates).contains_key(name)
        {
            return Err(CreateError::NoTemplate(name.to_string()));
        }
        if let Origin::Snapshot(id) = &spec.origin
            && !lock(&self.0.snapshots).is_retained(id)
        {
            return Err(CreateError::NoTemplate(id.to_string()));
        }
        self.insert(&spec)
    }

    fn try_enter(&self, id: &SandboxId) -> Option<Box<dyn Lease>> {
        let sandbox = self.find(id)?;
        let sandbox = sandbox.borrow();
        let is_running = sandbox.info.state == SandboxState::Running;
        is_running
            .then(|| -> Box<dyn Lease> { Box::new(FakeLease::new(self.clone(), &sandbox, None)) })
    }

    async fn enter(
        &self,
        id: &SandboxId,
        if_paused: IfPaused,
    ) -> Result<Box<dyn Lease>, EnterError> {
        let caller = match if_paused {
            IfPaused::Wake => Caller::Request,
            IfPaused::Fail => Caller::Passive,
        };
        let entered = self.grant(id, caller).await?;
        let lease = FakeLease::new(self.clone(), &entered.sandbox.borrow(), entered.wake);
        Ok(Box::new(lease))
    }

    async fn pause(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, PauseError> {
        self.pause_sandbox(id, epoch, scope).await
    }

    async fn resume(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
    ) -> Result<SandboxInfo, ResumeError> {
        let sandbox = self
            .find(id)
            .ok_or_else(|| EnterError::NotFound(id.clone()))?;
        if sandbox.borrow().info.state == SandboxState::Running {
            return Err(ResumeError::AlreadyRunning(id.clone()));
        }
        let entered = self.grant(id, Caller::Owner(scope)).await?;
        let info = entered.sandbox.borrow().info.clone();
        Ok(info)
    }

    async fn rollback(
        &self,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SandboxInfo, RollbackError> {
        let sandbox = self
            .find(id)
            .ok_or_else(|| RollbackError::NotFound(id.clone()))?;
        if !lock(&self.0.snapshots).belongs_to(snapshot, id) {
            return Err(RollbackError::NoSnapshot {
                id: id.clone(),
                snapshot: snapshot.clone(),
            });
        }
        let scope = lock(&self.0.snapshots).scope(snapshot);
        let mut state = SandboxState::Starting;
        let begun = sandbox.send_if_modified(|sandbox| {
            state = sandbox.info.state;
            let begins = matches!(state, SandboxState::Running | SandboxState::Paused);
            if begins {
                sandbox.end_epoch(SandboxState::Starting, Connections::Close);
                sandbox.info.snapshot = Some(snapshot.clone());
                sandbox.info.scope = scope;
            }
            begins
        });
        if !begun {
            let id = id.clone();
            return Err(RollbackError::Conflict { id, state });
        }
        let start = match scope {
            SnapshotScope::Full => Start::Restore,
            SnapshotScope::DiskOnly => Start::Boot,
        };
        let started = self.wake(id, &sandbox, start, StartCause::RolledBack).await;
        started.map_err(|error| RollbackError::Failed {
            id: id.clone(),
            part: FailedPart::Host,
            source: error.into(),
        })?;
        let info = sandbox.borrow().info.clone();
        Ok(info)
    }

    async fn fork(
        &self,
        origin: &SandboxId,
        children: Vec<ForkSpec>,
    ) -> Result<Vec<Result<SandboxInfo, CreateError>>, ForkError> {
        let sandbox = self
            .find(origin)
            .ok_or_else(|| ForkError::NotFound(origin.clone()))?;
        let state = sandbox.borrow().info.state;
        match state {
            SandboxState::Running => {}
            SandboxState::Paused => return Err(ForkError::Paused(origin.clone())),
            SandboxState::Stopped(_) => return Err(ForkError::NotFound(origin.clone())),
            state => {
                let id = origin.clone();
                return Err(ForkError::Conflict { id, state });
            }
        }
        let spec = sandbox.borrow().spec.clone();
        let mut outcomes = Vec::with_capacity(children.len());
        for child in children {
            let spec = SandboxSpec {
                id: child.id,
                epoch: child.epoch,
                access_token: child.access_token,
                ..spec.clone()
            };
            outcomes.push(self.create(spec).await);
        }
        Ok(outcomes)
    }

    async fn snapshot(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
    ) -> Result<TakenSnapshot, SnapshotError> {
        let _pausing = Counted::new(&self.0.pausing);
        let sandbox = self
            .find(id)
            .ok_or_else(|| SnapshotError::NotFound(id.clone()))?;
        if sandbox.borrow().info.state == SandboxState::Running {
            // The sender lives as long as this host.
            drop(self.0.hold_pauses.subscribe().wait_for(|hold| !hold).await);
        }
        let failed = || SnapshotError::Failed {
            id: id.clone(),
            source: scripted(),
        };
        if self.capture_fails(|script| script.snapshot_fails) {
            return Err(failed());
        }
        let info = sandbox.borrow().info.clone();
        let mut snapshots = lock(&self.0.snapshots);
        let taken = match (info.state, info.snapshot) {
            (SandboxState::Running, _) => snapshots.take(id, scope).ok_or_else(failed)?,
            (SandboxState::Paused, Some(own)) if scope == info.scope => {
                TakenSnapshot { id: own, scope }
            }
            (SandboxState::Paused, Some(own)) if info.scope == SnapshotScope::DiskOnly => {
                TakenSnapshot {
                    id: own,
                    scope: SnapshotScope::DiskOnly,
                }
            }
            (SandboxState::Paused, _) => snapshots.take(id, scope).ok_or_else(failed)?,
            (SandboxState::Stopped(_), _) => return Err(SnapshotError::NotFound(id.clone())),
            (state, _) => {
                let id = id.clone();
                return Err(SnapshotError::Conflict { id, state });
            }
        };
        snapshots.retain(taken.id.clone());
        if info.state == SandboxState::Running && scope == SnapshotScope::Full {
            drop(snapshots);
            // A crash falls back to it.
            sandbox.send_modify(|sandbox| {
                sandbox.info.snapshot = Some(taken.id.clone());
                sandbox.info.scope = SnapshotScope::Full;
            });
        }
        Ok(taken)
    }

    async fn release_snapshot(&self, snapshot: &SnapshotId) -> Result<(), ReleaseError> {
        if lock(&self.0.script).release_fails {
            return Err(ReleaseError {
                id: snapshot.clone(),
                source: scripted(),
            });
        }
        lock(&self.0.snapshots).release(snapshot);
        Ok(())
    }

    async fn retained_snapshots(&self) -> Vec<SnapshotId> {
        lock(&self.0.snapshots).retained()
    }

    async fn retained_snapshot(&self, snapshot: &SnapshotId) -> Option<RetainedSnapshot> {
        let snapshots = lock(&self.0.snapshots);
        Some(RetainedSnapshot {
            sandbox: snapshots.sandbox_of(snapshot)?,
            scope: snapshots.scope(snapshot),
            resources: RESOURCES,
        })
    }

    async fn metrics(&self, id: &SandboxId) -> Option<GuestMetrics> {
        let sandbox = self.find(id)?;
        let _in_flight = Counted::new(&self.0.metrics_in_flight);
        let now = *self.0.metrics_in_flight.borrow();
        self.0
            .max_metrics_in_flight
            .fetch_max(now, Ordering::SeqCst);
        self.0.metrics_calls.send_modify(|calls| *calls += 1);
        let delay = lock(&self.0.script).metrics_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let info = sandbox.borrow().info.clone();
        if info.state != SandboxState::Running || lock(&self.0.script).metrics_unanswered {
            return None;
        }
        Some(GuestMetrics {
            at: std::time::SystemTime::now(),
            cpus: u32::from(info.resources.vcpus),
            cpu_used_pct: 12.5,
            memory_used: info.resources.memory / 2,
            memory_total: info.resources.memory,
            memory_cache: info.resources.memory / 8,
            disk_used: info.resources.disk / 4,
            disk_total: info.resources.disk,
        })
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), KillError> {
        if self.stop(id, StopReason::Killed) {
            Ok(())
        } else {
            Err(KillError::NotFound(id.clone()))
        }
    }

    async fn info(&self, id: &SandboxId) -> Option<SandboxInfo> {
        let unreadable = lock(&self.0.script).recovers.as_ref() == Some(id);
        let sandbox = self.find(id).filter(|_| !unreadable)?;
        Some(sandbox.borrow().info.clone())
    }

    async fn list(&self) -> Vec<SandboxInfo> {
        let unreadable = lock(&self.0.script).recovers.clone();
        lock(&self.0.sandboxes)
            .iter()
            .filter(|(id, _)| Some(*id) != unreadable.as_ref())
            .map(|(_, sandbox)| sandbox.borrow().info.clone())
            .collect()
    }

    async fn broken(&self) -> Vec<Broken> {
        let mut script = lock(&self.0.script);
        script.recovers = None;
        script.broken.clone()
    }

    async fn spec(&self, id: &SandboxId) -> Option<SandboxSpec> {
        Some(self.find(id)?.borrow().spec.clone())
    }

    async fn console(&self, id: &SandboxId, limit: usize) -> Option<Vec<u8>> {
        self.find(id)?;
        let scripted = lock(&self.0.script).console.clone();
        let text =
            scripted.unwrap_or_else(|| format!("{DEFAULT_CONSOLE} {id} is ready\n").into_bytes());
        let from = text.len().saturating_sub(limit);
        text.get(from..).map(<[u8]>::to_vec)
    }

    async fn templates(&self) -> Vec<TemplateInfo> {
        lock(&self.0.templates).values().cloned().collect()
    }

    async fn build_template(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError> {
        if name.as_str().starts_with("no-") {
            return Err(TemplateError::NoArtefacts {
                name: name.clone(),
                source: "vmlinux is missing".into(),
            });
        }
        Ok(self.add_template(name.clone()))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }
}
