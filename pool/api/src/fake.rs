//! A host in this process, for the tests of those who call one.
//!
//! No machine runs here. A sandbox is a state on a `watch` and, while it runs, a small HTTP server ([`guest`]) that
//! answers on real Unix sockets. Wakes are counted and can be held, refused and failed; ports can be scripted.

mod guest;
mod life;
mod node;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{broadcast, watch};

use self::life::Life;
use crate::{
    Cause, CreateError, EnterError, Event, Happening, Port, Resources, SandboxId, SandboxInfo,
    SandboxSpec, SandboxState, SnapshotId, Start, StopReason, TemplateInfo, TemplateName,
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
    /// Answers `hello` without saying how long the answer is, and keeps the connection.
    Endless,
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
    stale: bool,
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

    /// While true the connections of a life that is over stay open, as if nobody had noticed yet.
    pub fn set_stale(&self, stale: bool) {
        lock(&self.0.script).stale = stale;
    }

    fn stale(&self) -> bool {
        lock(&self.0.script).stale
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

fn cause(text: &str) -> Cause {
    text.to_owned().into()
}

fn snapshot_id(number: u64) -> Option<SnapshotId> {
    format!("{number:064x}").parse().ok()
}
