//! A host in this process, for the tests of those who call one.
//!
//! No machine runs here. A sandbox is a state on a `watch` and, while it runs, a small HTTP server ([`guest`]) that
//! answers on real Unix sockets. Wakes are counted and can be held, refused and failed; ports can be scripted.

mod guest;
mod kept;
mod life;
mod node;
mod wake;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::{broadcast, watch};

use self::{kept::Snapshots, life::Life};
use crate::{
    Cause, CreateError, Event, Happening, Keep, Origin, Port, Resources, SandboxId, SandboxInfo,
    SandboxSpec, SandboxState, Start, StopReason, TemplateInfo, TemplateName,
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
    /// Whatever listens at this address of the host does.
    At(SocketAddr),
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
    pause_fails: bool,
    snapshot_fails: bool,
    give_up_fails: bool,
    silent: bool,
    metrics_take: Duration,
    console: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Inner {
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<watch::Sender<Life>>>>,
    templates: Mutex<BTreeMap<TemplateName, TemplateInfo>>,
    snapshots: Mutex<Snapshots>,
    script: Mutex<Script>,
    events: broadcast::Sender<Event>,
    hold: watch::Sender<bool>,
    hold_creates: watch::Sender<bool>,
    hold_pauses: watch::Sender<bool>,
    creates: watch::Sender<u64>,
    metrics: watch::Sender<u64>,
    asking: watch::Sender<u64>,
    most_asking: AtomicU64,
    wakes: watch::Sender<u64>,
    entering: watch::Sender<u64>,
    pausing: watch::Sender<u64>,
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
            snapshots: Mutex::default(),
            script: Mutex::default(),
            events: broadcast::channel(1024).0,
            hold: watch::channel(false).0,
            hold_creates: watch::channel(false).0,
            hold_pauses: watch::channel(false).0,
            creates: watch::channel(0).0,
            metrics: watch::channel(0).0,
            asking: watch::channel(0).0,
            most_asking: AtomicU64::new(0),
            wakes: watch::channel(0).0,
            entering: watch::channel(0).0,
            pausing: watch::channel(0).0,
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
            snapshot: lock(&self.0.snapshots).next_id(),
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

    /// Creations that were begun.
    pub fn creates(&self) -> u64 {
        *self.0.creates.borrow()
    }

    /// Returns once so many creations were begun.
    pub async fn wait_for_creates(&self, count: u64) {
        reached(&self.0.creates, count).await;
    }

    /// While `hold` is true creations that were begun do not finish.
    pub fn hold_creates(&self, hold: bool) {
        self.0.hold_creates.send_replace(hold);
    }

    /// While `hold` is true pauses and snapshots that were begun do not finish.
    pub fn hold_pauses(&self, hold: bool) {
        self.0.hold_pauses.send_replace(hold);
    }

    /// Returns once exactly so many callers wait for a pause or a snapshot.
    pub async fn wait_for_pausing(&self, count: u64) {
        // The sender lives as long as this host.
        drop(
            self.0
                .pausing
                .subscribe()
                .wait_for(|pausing| *pausing == count)
                .await,
        );
    }

    /// While true pauses fail, and the sandbox goes on running.
    pub fn set_pause_fails(&self, fails: bool) {
        lock(&self.0.script).pause_fails = fails;
    }

    /// What every guest has on its console from now on.
    pub fn set_console(&self, bytes: impl Into<Vec<u8>>) {
        lock(&self.0.script).console = Some(bytes.into());
    }

    /// While true no guest says anything of itself.
    pub fn set_silent(&self, silent: bool) {
        lock(&self.0.script).silent = silent;
    }

    /// How long every guest takes to say something of itself.
    pub fn set_metrics_take(&self, take: Duration) {
        lock(&self.0.script).metrics_take = take;
    }

    /// How many guests were asked at the same time at most.
    pub fn most_metrics_at_once(&self) -> u64 {
        self.0.most_asking.load(Ordering::SeqCst)
    }

    /// How often a guest was asked for its metrics.
    pub fn metrics_asked(&self) -> u64 {
        *self.0.metrics.borrow()
    }

    /// Returns once guests were asked so often for their metrics.
    pub async fn wait_for_metrics(&self, count: u64) {
        reached(&self.0.metrics, count).await;
    }

    /// How the present or last machine of a sandbox came about.
    pub fn start_of(&self, id: &SandboxId) -> Option<Start> {
        self.find(id).map(|life| life.borrow().start)
    }

    /// What a sandbox was made from.
    pub fn spec_of(&self, id: &SandboxId) -> Option<SandboxSpec> {
        self.find(id).map(|life| life.borrow().spec.clone())
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
            keep: Keep::Full,
            trouble: None,
        };
        let mut sandboxes = lock(&self.0.sandboxes);
        if sandboxes.contains_key(&spec.id) {
            return Err(CreateError::Exists(spec.id.clone()));
        }
        let start = match &spec.origin {
            Origin::Snapshot(snapshot) => lock(&self.0.snapshots).start(snapshot),
            Origin::Template(_) => Start::Fork,
        };
        let life = Life::new(info.clone(), spec.clone(), start);
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
}

fn cause(text: &str) -> Cause {
    text.to_owned().into()
}

/// Returns once a counter is at `count` or beyond.
async fn reached(counter: &watch::Sender<u64>, count: u64) {
    // The sender lives as long as the host.
    drop(counter.subscribe().wait_for(|now| *now >= count).await);
}
