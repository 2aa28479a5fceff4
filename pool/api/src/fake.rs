//! An in-process host for the tests of its callers.
//!
//! No machine runs here. A sandbox is a state on a `watch` and, while it runs, a small HTTP server ([`guest`]) that
//! answers on real Unix sockets. `script` holds, delays and fails operations. The contract suite of this crate runs
//! against it as against the real host.

mod counter;
mod guest;
mod lease;
mod node;
mod pause;
mod sandbox;
mod script;
mod snapshots;
mod wake;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{broadcast, watch};

use self::{
    counter::{at_least, exactly},
    sandbox::{Connections, Sandbox},
    script::Script,
    snapshots::Snapshots,
};
use crate::{
    Cause, CreateError, Event, EventKind, Origin, PauseCause, Resources, SandboxId, SandboxInfo,
    SandboxSpec, SandboxState, SnapshotScope, Start, StartCause, StopReason, TemplateInfo,
    TemplateName,
};

pub use self::{
    guest::Echo,
    script::{PortScript, WakeScript},
};

#[derive(Debug)]
struct Inner {
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<watch::Sender<Sandbox>>>>,
    templates: Mutex<BTreeMap<TemplateName, TemplateInfo>>,
    snapshots: Mutex<Snapshots>,
    script: Mutex<Script>,
    events: broadcast::Sender<Event>,
    hold_wakes: watch::Sender<bool>,
    hold_creates: watch::Sender<bool>,
    hold_pauses: watch::Sender<bool>,
    creates: watch::Sender<u64>,
    metrics_calls: watch::Sender<u64>,
    metrics_in_flight: watch::Sender<u64>,
    max_metrics_in_flight: AtomicU64,
    wakes: watch::Sender<u64>,
    entering: watch::Sender<u64>,
    pausing: watch::Sender<u64>,
    dials: AtomicU64,
    leases: watch::Sender<u64>,
}

/// The fake host. Clones share their state.
#[derive(Debug, Clone)]
pub struct FakeNode(Arc<Inner>);

const RESOURCES: Resources = Resources {
    vcpus: 1,
    memory: 256 << 20,
    disk: 1 << 30,
};

// === impl FakeNode ===

impl Default for FakeNode {
    fn default() -> Self {
        let inner = Inner {
            sandboxes: Mutex::default(),
            templates: Mutex::default(),
            snapshots: Mutex::default(),
            script: Mutex::default(),
            events: broadcast::channel(1024).0,
            hold_wakes: watch::channel(false).0,
            hold_creates: watch::channel(false).0,
            hold_pauses: watch::channel(false).0,
            creates: watch::channel(0).0,
            metrics_calls: watch::channel(0).0,
            metrics_in_flight: watch::channel(0).0,
            max_metrics_in_flight: AtomicU64::new(0),
            wakes: watch::channel(0).0,
            entering: watch::channel(0).0,
            pausing: watch::channel(0).0,
            dials: AtomicU64::new(0),
            leases: watch::channel(0).0,
        };
        Self(Arc::new(inner))
    }
}

impl FakeNode {
    /// Creates a host that has these templates built.
    pub fn with_templates(names: &[&str]) -> Self {
        let node = Self::default();
        for name in names
            .iter()
            .filter_map(|name| name.parse::<TemplateName>().ok())
        {
            node.add_template(name);
        }
        node
    }

    /// Adds a template, unless there is one of its name.
    pub fn add_template(&self, name: TemplateName) -> TemplateInfo {
        let info = TemplateInfo {
            name: name.clone(),
            resources: RESOURCES,
            snapshot: lock(&self.0.snapshots).next_id(),
            built_at: Some(SystemTime::now()),
        };
        lock(&self.0.templates).entry(name).or_insert(info).clone()
    }

    /// Returns the number of wakes that began.
    pub fn wakes(&self) -> u64 {
        *self.0.wakes.borrow()
    }

    /// Returns once this number of wakes began.
    pub async fn wait_for_wakes(&self, count: u64) {
        at_least(&self.0.wakes, count).await;
    }

    /// Returns the number of dials.
    pub fn dials(&self) -> u64 {
        self.0.dials.load(Ordering::SeqCst)
    }

    /// Returns the number of leases that exist.
    pub fn leases(&self) -> u64 {
        *self.0.leases.borrow()
    }

    /// Returns once exactly this number of leases exists.
    pub async fn wait_for_leases(&self, count: u64) {
        exactly(&self.0.leases, count).await;
    }

    /// Returns once exactly this number of callers waits for a lease.
    pub async fn wait_for_entering(&self, count: u64) {
        exactly(&self.0.entering, count).await;
    }

    /// Returns the number of creates that began.
    pub fn creates(&self) -> u64 {
        *self.0.creates.borrow()
    }

    /// Returns once this number of creates began.
    pub async fn wait_for_creates(&self, count: u64) {
        at_least(&self.0.creates, count).await;
    }

    /// Returns once exactly this number of callers waits for a pause or a snapshot.
    pub async fn wait_for_pausing(&self, count: u64) {
        exactly(&self.0.pausing, count).await;
    }

    /// Returns the largest number of concurrent metrics calls.
    pub fn max_concurrent_metrics(&self) -> u64 {
        self.0.max_metrics_in_flight.load(Ordering::SeqCst)
    }

    /// Returns the number of metrics calls.
    pub fn metrics_calls(&self) -> u64 {
        *self.0.metrics_calls.borrow()
    }

    /// Returns once this number of metrics calls began.
    pub async fn wait_for_metrics(&self, count: u64) {
        at_least(&self.0.metrics_calls, count).await;
    }

    /// Returns how the present or last epoch of a sandbox started.
    pub fn start_of(&self, id: &SandboxId) -> Option<Start> {
        self.find(id).map(|sandbox| sandbox.borrow().start)
    }

    /// Returns the spec that a sandbox was created with.
    pub fn spec_of(&self, id: &SandboxId) -> Option<SandboxSpec> {
        self.find(id).map(|sandbox| sandbox.borrow().spec.clone())
    }

    /// Ends the sandbox's machine: it falls back to its last snapshot, or stops when it has none.
    pub fn crash(&self, id: &SandboxId) {
        let Some(sandbox) = self.find(id) else { return };
        if sandbox.borrow().info.snapshot.is_none() {
            self.stop(id, StopReason::Crashed);
            return;
        }
        sandbox.send_modify(|sandbox| sandbox.end_epoch(SandboxState::Paused, Connections::Close));
        let scope = sandbox.borrow().info.scope;
        let cause = PauseCause::MachineLost;
        self.notify(&sandbox.borrow().info, EventKind::Paused { scope, cause });
    }

    /// Sets the state of a sandbox, without an event, as if an operation were in progress.
    pub fn set_state(&self, id: &SandboxId, state: SandboxState) {
        if let Some(sandbox) = self.find(id) {
            sandbox.send_modify(|sandbox| sandbox.info.state = state);
        }
    }

    /// Returns once the sandbox's state satisfies `wanted`, or the sandbox does not exist.
    pub async fn wait_for(&self, id: &SandboxId, wanted: impl Fn(SandboxState) -> bool) {
        if let Some(sandbox) = self.find(id) {
            // An error means that the sender is dropped, and the sandbox with it.
            drop(
                sandbox
                    .subscribe()
                    .wait_for(|sandbox| wanted(sandbox.info.state))
                    .await,
            );
        }
    }

    fn find(&self, id: &SandboxId) -> Option<Arc<watch::Sender<Sandbox>>> {
        lock(&self.0.sandboxes).get(id).cloned()
    }

    fn notify(&self, info: &SandboxInfo, kind: EventKind) {
        let event = Event {
            id: info.id.clone(),
            epoch: info.epoch,
            at: SystemTime::now(),
            kind,
        };
        // An error means that there is no subscriber.
        drop(self.0.events.send(event));
    }

    fn notify_started(&self, sandbox: &Sandbox, cause: StartCause) {
        let report = sandbox.report();
        self.notify(&sandbox.info, EventKind::Started { cause, report });
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
            scope: SnapshotScope::Full,
            last_error: None,
        };
        let mut sandboxes = lock(&self.0.sandboxes);
        if sandboxes.contains_key(&spec.id) {
            return Err(CreateError::Exists(spec.id.clone()));
        }
        let start = match &spec.origin {
            Origin::Snapshot(snapshot) => lock(&self.0.snapshots).start(snapshot),
            Origin::Template(_) => Start::Fork,
        };
        let sandbox = Sandbox::new(info.clone(), spec.clone(), start);
        self.notify_started(&sandbox, StartCause::Created);
        sandboxes.insert(spec.id.clone(), Arc::new(watch::channel(sandbox).0));
        Ok(info)
    }

    /// Removes a sandbox; returns whether it existed.
    fn stop(&self, id: &SandboxId, reason: StopReason) -> bool {
        let Some(sandbox) = lock(&self.0.sandboxes).remove(id) else {
            return false;
        };
        let state = SandboxState::Stopped(reason);
        sandbox.send_modify(|sandbox| {
            // Its callers get a conflict.
            sandbox.pause = None;
            sandbox.end_epoch(state, Connections::Close);
        });
        self.notify(&sandbox.borrow().info, EventKind::Stopped(reason));
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cause of every scripted failure.
fn scripted() -> Cause {
    "scripted".into()
}
