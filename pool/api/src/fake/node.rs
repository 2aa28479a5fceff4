//! The fake host's answers.

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use super::{Fake, cause, life::FakeLease, lock, snapshot_id};
use crate::{
    Child, CreateError, EnterError, Epoch, Event, ForkError, Happening, KillError, Lease, Node,
    Origin, PauseError, ResumeError, SandboxId, SandboxInfo, SandboxSpec, SandboxState,
    SnapshotError, SnapshotId, StopReason, TemplateError, TemplateInfo, TemplateName, Wake,
};

/// A caller that waits to be let in.
struct Entering<'a>(&'a watch::Sender<u64>);

impl<'a> Entering<'a> {
    fn new(count: &'a watch::Sender<u64>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Node for Fake {
    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo, CreateError> {
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
        let info = self.insert(&spec)?;
        self.tell(&info, Happening::Started);
        Ok(info)
    }

    async fn enter(&self, id: &SandboxId, wake: Wake) -> Result<Box<dyn Lease>, EnterError> {
        let _entering = Entering::new(&self.0.entering);
        loop {
            let life = self
                .find(id)
                .ok_or_else(|| EnterError::NotFound(id.clone()))?;
            let mut begin = false;
            life.send_if_modified(|life| {
                begin = life.info.state == SandboxState::Paused && wake == Wake::Allowed;
                if begin {
                    life.info.state = SandboxState::Starting;
                }
                begin
            });
            if begin {
                // The wake goes on when its first caller gives up: others may be waiting.
                let (fake, id, sender) = (self.clone(), id.clone(), life.clone());
                let woken = tokio::spawn(async move { fake.wake(&id, &sender).await });
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
            let state = life.borrow().info.state;
            match state {
                SandboxState::Running => {
                    return Ok(Box::new(FakeLease::new(self.clone(), &life.borrow())));
                }
                SandboxState::Starting => {
                    let mut life = life.subscribe();
                    if life
                        .wait_for(|life| life.info.state != SandboxState::Starting)
                        .await
                        .is_err()
                    {
                        return Err(EnterError::NotFound(id.clone()));
                    }
                }
                SandboxState::Paused if wake == Wake::Refused => {
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

    async fn pause(&self, id: &SandboxId, epoch: Epoch) -> Result<SnapshotId, PauseError> {
        let life = self
            .find(id)
            .ok_or_else(|| PauseError::NotFound(id.clone()))?;
        let (state, now) = (life.borrow().info.state, life.borrow().info.epoch);
        match state {
            SandboxState::Running if now == epoch => {}
            SandboxState::Paused => return Err(PauseError::Already(id.clone())),
            state => {
                return Err(PauseError::Conflict {
                    id: id.clone(),
                    state,
                });
            }
        }
        let (snapshot, stale) = (snapshot_id(now.0), self.stale());
        life.send_modify(|life| {
            life.sleep(stale);
            life.info.snapshot = snapshot.clone();
        });
        self.tell(&life.borrow().info, Happening::Paused);
        snapshot.ok_or_else(|| PauseError::Failed {
            id: id.clone(),
            source: cause("name the snapshot"),
        })
    }

    async fn resume(&self, id: &SandboxId) -> Result<SandboxInfo, ResumeError> {
        let life = self
            .find(id)
            .ok_or_else(|| EnterError::NotFound(id.clone()))?;
        if life.borrow().info.state == SandboxState::Running {
            return Err(ResumeError::Already(id.clone()));
        }
        drop(self.enter(id, Wake::Allowed).await?);
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

    async fn snapshot(&self, id: &SandboxId) -> Result<SnapshotId, SnapshotError> {
        let life = self
            .find(id)
            .ok_or_else(|| SnapshotError::NotFound(id.clone()))?;
        let epoch = life.borrow().info.epoch;
        snapshot_id(epoch.0).ok_or_else(|| SnapshotError::Failed {
            id: id.clone(),
            source: cause("name it"),
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
        let text = format!("booting\n{id} is ready\n").into_bytes();
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
