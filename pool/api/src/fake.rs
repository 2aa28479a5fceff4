//! A host in this process, for the tests of those who call one.
//!
//! No machine runs here. A sandbox is a state on a `watch` and, while it runs, a small HTTP server ([`guest`]) that
//! answers on real Unix sockets. Wakes are counted and can be held, refused and failed; ports can be scripted.

mod guest;
mod life;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use self::life::{FakeLease, Life};
use crate::{
    Cause, Child, CreateError, EnterError, Event, ForkError, Happening, KillError, Lease, Node,
    Origin, PauseError, Port, Resources, ResumeError, SandboxId, SandboxInfo, SandboxSpec,
    SandboxState, SnapshotError, SnapshotId, Start, StopReason, TemplateError, TemplateInfo,
    TemplateName, Wake,
};

pub use self::guest::Echo;

/// What a port of every guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortScript {
    /// Nothing listens.
    Closed,
    /// Nothing listens for so many dials; then the echo server does.
    ClosedTimes(u32),
    /// Reads the head of a request and closes without a byte of an answer.
    HangsUp,
}

/// How the next wake ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeScript {
    /// There is no room.
    NoRoom,
    /// It fails; the sandbox stays paused.
    Fails,
}

#[derive(Debug, Default)]
struct Script {
    ports: HashMap<Port, PortScript>,
    next_wake: Option<WakeScript>,
    no_room: bool,
}

#[derive(Debug)]
struct Inner {
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<watch::Sender<Life>>>>,
    templates: Mutex<BTreeMap<TemplateName, TemplateInfo>>,
    script: Mutex<Script>,
    events: broadcast::Sender<Event>,
    hold: watch::Sender<bool>,
    wakes: watch::Sender<u64>,
    entering: watch::Sender<u64>,
    dials: AtomicU64,
    leases: watch::Sender<u64>,
}

/// The host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Inner>);

const RESOURCES: Resources = Resources {
    vcpus: 1,
    memory: 256 << 20,
    disk: 1 << 30,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Fake ===

impl Default for Fake {
    fn default() -> Self {
        let inner = Inner {
            sandboxes: Mutex::default(),
            templates: Mutex::default(),
            script: Mutex::default(),
            events: broadcast::channel(1024).0,
            hold: watch::channel(false).0,
            wakes: watch::channel(0).0,
            entering: watch::channel(0).0,
            dials: AtomicU64::new(0),
            leases: watch::channel(0).0,
        };
        Self(Arc::new(inner))
    }
}

impl Fake {
    /// A host that has these templates built.
    pub fn with_templates(names: &[&str]) -> Self {
        let fake = Self::default();
        for name in names
            .iter()
            .filter_map(|name| name.parse::<TemplateName>().ok())
        {
            fake.add_template(name);
        }
        fake
    }

    fn add_template(&self, name: TemplateName) -> TemplateInfo {
        let info = TemplateInfo {
            name: name.clone(),
            resources: RESOURCES,
            snapshot: snapshot_id(0),
            built_at: Some(SystemTime::now()),
        };
        lock(&self.0.templates).entry(name).or_insert(info).clone()
    }

    /// Wakes that were begun.
    pub fn wakes(&self) -> u64 {
        *self.0.wakes.borrow()
    }

    /// Connections into guests that were asked for.
    pub fn dials(&self) -> u64 {
        self.0.dials.load(Ordering::SeqCst)
    }

    /// Leases that are out.
    pub fn leases(&self) -> u64 {
        *self.0.leases.borrow()
    }

    /// Returns once exactly so many leases are out.
    pub async fn wait_for_leases(&self, count: u64) {
        // The sender lives as long as this host.
        drop(
            self.0
                .leases
                .subscribe()
                .wait_for(|leases| *leases == count)
                .await,
        );
    }

    /// Returns once so many wakes were begun.
    pub async fn wait_for_wakes(&self, count: u64) {
        drop(
            self.0
                .wakes
                .subscribe()
                .wait_for(|wakes| *wakes >= count)
                .await,
        );
    }

    /// Returns once exactly so many callers wait to be let in.
    pub async fn wait_for_entering(&self, count: u64) {
        drop(
            self.0
                .entering
                .subscribe()
                .wait_for(|entering| *entering == count)
                .await,
        );
    }

    /// While `hold` is true wakes do not finish.
    pub fn hold_wakes(&self, hold: bool) {
        self.0.hold.send_replace(hold);
    }

    /// Scripts a port of every guest.
    pub fn script_port(&self, port: Port, script: PortScript) {
        lock(&self.0.script).ports.insert(port, script);
    }

    /// Scripts the next wake.
    pub fn script_wake(&self, script: WakeScript) {
        lock(&self.0.script).next_wake = Some(script);
    }

    /// While true nothing can be created or forked.
    pub fn set_full(&self, full: bool) {
        lock(&self.0.script).no_room = full;
    }

    /// The sandbox's machine ends by itself.
    pub fn crash(&self, id: &SandboxId) {
        self.end(id, StopReason::Crashed);
    }

    /// Puts a sandbox into a state as if somebody else had.
    pub fn force_state(&self, id: &SandboxId, state: SandboxState) {
        if let Some(life) = self.find(id) {
            life.send_modify(|life| life.info.state = state);
        }
    }

    /// Returns once the sandbox's state satisfies `wanted`, or it is gone.
    pub async fn wait_for(&self, id: &SandboxId, wanted: impl Fn(SandboxState) -> bool) {
        if let Some(life) = self.find(id) {
            // An error means that the sender is gone, and so is the sandbox.
            drop(
                life.subscribe()
                    .wait_for(|life| wanted(life.info.state))
                    .await,
            );
        }
    }

    fn find(&self, id: &SandboxId) -> Option<Arc<watch::Sender<Life>>> {
        lock(&self.0.sandboxes).get(id).cloned()
    }

    fn tell(&self, info: &SandboxInfo, what: Happening) {
        let event = Event {
            id: info.id.clone(),
            epoch: info.epoch,
            at: SystemTime::now(),
            what,
        };
        // Nobody listening is no error.
        drop(self.0.events.send(event));
    }

    fn insert(&self, spec: &SandboxSpec) -> Result<SandboxInfo, CreateError> {
        let now = SystemTime::now();
        let info = SandboxInfo {
            id: spec.id.clone(),
            template: spec.template.clone(),
            state: SandboxState::Running,
            epoch: spec.epoch,
            started_at: now,
            since: now,
            resources: RESOURCES,
            snapshot: None,
            trouble: None,
        };
        let mut sandboxes = lock(&self.0.sandboxes);
        if sandboxes.contains_key(&spec.id) {
            return Err(CreateError::Exists(spec.id.clone()));
        }
        let life = Life::new(info.clone(), spec.clone());
        sandboxes.insert(spec.id.clone(), Arc::new(watch::channel(life).0));
        Ok(info)
    }

    fn end(&self, id: &SandboxId, why: StopReason) -> bool {
        let Some(life) = lock(&self.0.sandboxes).remove(id) else {
            return false;
        };
        life.send_modify(|life| life.leave(SandboxState::Stopped(why)));
        self.tell(&life.borrow().info, Happening::Stopped(why));
        true
    }

    /// Begins a wake of a paused sandbox, and finishes it when it is not held.
    async fn wake(&self, id: &SandboxId, life: &watch::Sender<Life>) -> Result<(), EnterError> {
        self.0.wakes.send_modify(|wakes| *wakes += 1);
        let mut hold = self.0.hold.subscribe();
        if hold.wait_for(|hold| !hold).await.is_err() {
            return Err(EnterError::NotFound(id.clone()));
        }
        let script = lock(&self.0.script).next_wake.take();
        if let Some(script) = script {
            life.send_modify(|life| life.leave(SandboxState::Paused));
            return Err(match script {
                WakeScript::NoRoom => EnterError::NoRoom {
                    diagnostic: "memory".to_owned(),
                },
                WakeScript::Fails => EnterError::Failed {
                    id: id.clone(),
                    source: cause("scripted"),
                },
            });
        }
        life.send_modify(|life| life.begin(Start::Restore));
        self.tell(&life.borrow().info, Happening::Started);
        Ok(())
    }
}

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

fn cause(text: &str) -> Cause {
    text.to_owned().into()
}

fn snapshot_id(number: u64) -> Option<SnapshotId> {
    format!("{number:064x}").parse().ok()
}

// === impl Node for Fake ===

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

    async fn pause(&self, id: &SandboxId, epoch: crate::Epoch) -> Result<SnapshotId, PauseError> {
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
        let snapshot = snapshot_id(now.0);
        life.send_modify(|life| {
            life.leave(SandboxState::Paused);
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
