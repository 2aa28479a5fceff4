//! The fake host's answers.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{
    Fake, cause,
    life::FakeLease,
    lock,
    wake::{Waiting, Who},
};
use crate::{
    Child, CreateError, EnterError, Epoch, Event, ForkError, GiveUpError, GuestMetrics, Happening,
    Keep, KillError, Lease, Node, Origin, PauseError, ResumeError, RollbackError, SandboxId,
    SandboxInfo, SandboxSpec, SandboxState, SnapshotError, SnapshotId, Start, StopReason,
    TemplateError, TemplateInfo, TemplateName, Wake,
};

/// What guests print, when they were not told what.
const FIRST_WORDS: &str = "2026-11-22T01:35:11.872215Z booting\n2026-11-22T01:35:12.000001Z";

#[async_trait]
impl Node for Fake {
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
            && !lock(&self.0.snapshots).is_kept(id)
        {
            return Err(CreateError::NoTemplate(id.to_string()));
        }
        let info = self.insert(&spec)?;
        self.tell(&info, Happening::Started);
        Ok(info)
    }

    async fn enter(&self, id: &SandboxId, wake: Wake) -> Result<Box<dyn Lease>, EnterError> {
        let who = match wake {
            Wake::Allowed => Who::Traffic,
            Wake::Refused => Who::Visitor,
        };
        let life = self.let_in(id, who).await?;
        let lease = FakeLease::new(self.clone(), &life.borrow());
        Ok(Box::new(lease))
    }

    async fn pause(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        keep: Keep,
    ) -> Result<SnapshotId, PauseError> {
        let _waiting = Waiting::new(&self.0.pausing);
        let missing = || PauseError::NotFound(id.clone());
        let life = self.find(id).ok_or_else(missing)?;
        let (mut begins, mut state) = (false, SandboxState::Running);
        life.send_if_modified(|life| {
            state = life.info.state;
            begins = state == SandboxState::Running && life.info.epoch == epoch;
            if begins {
                life.info.state = SandboxState::Pausing;
            }
            begins
        });
        match state {
            SandboxState::Running if begins => {
                // It goes on when its first caller gives up: others may be waiting.
                let (fake, id) = (self.clone(), id.clone());
                tokio::spawn(async move { fake.finish_pause(&id, keep).await });
            }
            SandboxState::Pausing => {}
            SandboxState::Paused => return Err(PauseError::Already(id.clone())),
            state => {
                return Err(PauseError::Conflict {
                    id: id.clone(),
                    state,
                });
            }
        }
        let mut life = life.subscribe();
        let ended = life.wait_for(|life| life.info.state != SandboxState::Pausing);
        let info = ended.await.map_err(|_| missing())?.info.clone();
        match (info.state, info.snapshot) {
            (SandboxState::Paused, Some(snapshot)) => Ok(snapshot),
            (SandboxState::Stopped(_), _) => Err(missing()),
            _ => Err(PauseError::Failed {
                id: id.clone(),
                source: cause("scripted"),
            }),
        }
    }

    async fn resume(&self, id: &SandboxId, from: Keep) -> Result<SandboxInfo, ResumeError> {
        let life = self
            .find(id)
            .ok_or_else(|| EnterError::NotFound(id.clone()))?;
        if life.borrow().info.state == SandboxState::Running {
            return Err(ResumeError::Already(id.clone()));
        }
        let life = self.let_in(id, Who::Owner(from)).await?;
        let info = life.borrow().info.clone();
        Ok(info)
    }

    async fn rollback(
        &self,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SandboxInfo, RollbackError> {
        let life = self
            .find(id)
            .ok_or_else(|| RollbackError::NotFound(id.clone()))?;
        if !lock(&self.0.snapshots).is_of(snapshot, id) {
            return Err(RollbackError::NoSnapshot {
                id: id.clone(),
                snapshot: snapshot.clone(),
            });
        }
        let state = life.borrow().info.state;
        if !matches!(state, SandboxState::Running | SandboxState::Paused) {
            return Err(RollbackError::Conflict {
                id: id.clone(),
                state,
            });
        }
        life.send_modify(|life| {
            life.leave(SandboxState::Starting);
            life.info.snapshot = Some(snapshot.clone());
        });
        let woken = self.wake(id, &life, Start::Restore).await;
        woken.map_err(|error| RollbackError::Failed {
            id: id.clone(),
            source: error.into(),
        })?;
        let info = life.borrow().info.clone();
        Ok(info)
    }

    async fn fork(
        &self,
        origin: &SandboxId,
        children: Vec<Child>,
    ) -> Result<Vec<Result<SandboxInfo, CreateError>>, ForkError> {
        let life = self
            .find(origin)
            .ok_or_else(|| ForkError::NotFound(origin.clone()))?;
        if life.borrow().info.state != SandboxState::Running {
            return Err(ForkError::Paused(origin.clone()));
        }
        let spec = life.borrow().spec.clone();
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

    async fn snapshot(&self, id: &SandboxId, keep: Keep) -> Result<SnapshotId, SnapshotError> {
        let _waiting = Waiting::new(&self.0.pausing);
        let life = self
            .find(id)
            .ok_or_else(|| SnapshotError::NotFound(id.clone()))?;
        // Nobody holds it any more when the sender is gone.
        drop(self.0.hold_pauses.subscribe().wait_for(|hold| !hold).await);
        let failed = || SnapshotError::Failed {
            id: id.clone(),
            source: cause("scripted"),
        };
        if lock(&self.0.script).snapshot_fails {
            return Err(failed());
        }
        let (state, paused_in) = (
            life.borrow().info.state,
            life.borrow().info.snapshot.clone(),
        );
        let mut snapshots = lock(&self.0.snapshots);
        let taken = match state {
            SandboxState::Running => snapshots.take(id, keep),
            SandboxState::Paused => paused_in,
            state => {
                return Err(SnapshotError::Conflict {
                    id: id.clone(),
                    state,
                });
            }
        };
        let taken = taken.ok_or_else(failed)?;
        snapshots.keep(taken.clone());
        Ok(taken)
    }

    async fn give_up(&self, snapshot: &SnapshotId) -> Result<(), GiveUpError> {
        if lock(&self.0.script).give_up_fails {
            return Err(GiveUpError {
                id: snapshot.clone(),
                source: cause("scripted"),
            });
        }
        lock(&self.0.snapshots).give_up(snapshot);
        Ok(())
    }

    async fn kept_snapshots(&self) -> Vec<SnapshotId> {
        lock(&self.0.snapshots).kept()
    }

    async fn metrics(&self, id: &SandboxId) -> Option<GuestMetrics> {
        let life = self.find(id)?;
        let _asking = Waiting::new(&self.0.asking);
        let now = *self.0.asking.borrow();
        self.0.most_asking.fetch_max(now, Ordering::SeqCst);
        self.0.metrics.send_modify(|asked| *asked += 1);
        let take = lock(&self.0.script).metrics_take;
        if !take.is_zero() {
            tokio::time::sleep(take).await;
        }
        let info = life.borrow().info.clone();
        if info.state != SandboxState::Running || lock(&self.0.script).silent {
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
        if self.end(id, StopReason::Killed) {
            Ok(())
        } else {
            Err(KillError::NotFound(id.clone()))
        }
    }

    async fn info(&self, id: &SandboxId) -> Option<SandboxInfo> {
        self.find(id).map(|life| life.borrow().info.clone())
    }

    async fn list(&self) -> Vec<SandboxInfo> {
        lock(&self.0.sandboxes)
            .values()
            .map(|life| life.borrow().info.clone())
            .collect()
    }

    async fn console(&self, id: &SandboxId, limit: usize) -> Option<Vec<u8>> {
        self.find(id)?;
        let scripted = lock(&self.0.script).console.clone();
        let text =
            scripted.unwrap_or_else(|| format!("{FIRST_WORDS} {id} is ready\n").into_bytes());
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
                source: cause("vmlinux is missing"),
            });
        }
        Ok(self.add_template(name.clone()))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }
}

impl Fake {
    async fn finish_pause(&self, id: &SandboxId, keep: Keep) {
        // The sender lives as long as this host.
        drop(self.0.hold_pauses.subscribe().wait_for(|hold| !hold).await);
        let Some(life) = self.find(id) else { return };
        if lock(&self.0.script).pause_fails {
            return life.send_modify(|life| life.info.state = SandboxState::Running);
        }
        let snapshot = lock(&self.0.snapshots).take(id, keep);
        let stale = self.stale();
        life.send_modify(|life| {
            life.info.snapshot = snapshot;
            life.info.keep = keep;
            life.sleep(stale);
        });
        self.tell(&life.borrow().info, Happening::Paused);
    }
}
