//! The callers' side of a driver.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use pool_api::{EnterError, Resources, SandboxInfo, SandboxSpec, SandboxState};
use snapshotter::Pin;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::{Instrument, info_span};
use vmm_api::Machine;

use super::{
    Driver,
    commands::Command,
    replies::{Pending, Replies},
};
use crate::{
    backoff::Backoff,
    gate::Gate,
    host::Host,
    idle::idle,
    lease::{LeaseTarget, PoolLease},
    lifecycle::{Effect, Lifecycle, WakeSource},
    registry::Registration,
    sandbox_dir::{Record, SandboxDir},
};

/// Commands that may queue for the driver.
const INBOX: usize = 256;

/// A sandbox as the pool's calls reach it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) spec: Arc<SandboxSpec>,
    pub(crate) dir: SandboxDir,
    pub(crate) info: watch::Receiver<SandboxInfo>,
    gate: Arc<Gate>,
    /// The machine behind the gate while it is open.
    target: Arc<RwLock<Option<Arc<LeaseTarget>>>>,
    inbox: mpsc::Sender<Command>,
}

/// The state in which a driver starts.
#[derive(Debug)]
pub(crate) enum InitialState {
    /// A new sandbox forks, and a caller waits for it.
    Fork {
        origin: WakeSource<Pin>,
        resources: Resources,
        reply: oneshot::Sender<Result<PoolLease, EnterError>>,
    },
    /// The sandbox is paused.
    Paused { record: Box<Record>, snapshot: Pin },
}

// === impl Handle ===

impl Handle {
    /// Spawns the driver of a sandbox.
    pub(crate) fn spawn(
        host: Arc<Host>,
        spec: Arc<SandboxSpec>,
        dir: SandboxDir,
        registration: Registration,
        initial: InitialState,
    ) -> Arc<Self> {
        let gate = Arc::new(Gate::new());
        let target = Arc::new(RwLock::new(None));
        let (sender, inbox) = mpsc::channel(INBOX);
        let info = watch::Sender::new(initial.info(&spec));
        let handle = Self {
            spec: Arc::clone(&spec),
            dir: dir.clone(),
            info: info.subscribe(),
            gate: Arc::clone(&gate),
            target: Arc::clone(&target),
            inbox: sender,
        };
        let span = info_span!("sandbox", sandbox.id = %spec.id);
        let mut replies = Replies::new(Instant::now());
        let kept = match &initial {
            InitialState::Fork { .. } => None,
            InitialState::Paused { record, .. } => {
                Some(host.capacity.keep(record.resources.memory))
            }
        };
        let (lifecycle, effects) = initial.lifecycle(&spec, &mut replies);
        let driver = Driver {
            host,
            spec,
            dir,
            registration: Some(registration),
            gate,
            target,
            info,
            inbox,
            lifecycle,
            machine: None,
            kept,
            maybe_recorded: Vec::new(),
            replies,
            wake_backoff: Backoff::of_wakes(),
            pause_backoff: Backoff::of_pauses(),
            tasks: JoinSet::new(),
            starting: None,
            shutdown: None,
        };
        tokio::spawn(driver.run(effects).instrument(span));
        Arc::new(handle)
    }

    /// Grants a lease without the driver; `None` when the gate is shut.
    pub(crate) fn try_enter(&self) -> Option<PoolLease> {
        let pass = self.gate.enter()?;
        let target = self.target.read().as_ref().map(Arc::clone)?;
        Some(PoolLease::new(target, pass))
    }

    /// Waits until the sandbox is running and has had no lease for `window`; returns the time since which it has none. Never
    /// completes for one that has stopped.
    pub(crate) async fn idle_for(&self, window: Duration) -> Instant {
        let mut info = self.info.clone();
        loop {
            let running = info.wait_for(|info| info.state == SandboxState::Running);
            if running.await.is_err() {
                return std::future::pending().await;
            }
            let now = Instant::now();
            idle(&self.gate, window, now).await;
            if info.borrow().state == SandboxState::Running {
                return self.gate.empty_since();
            }
        }
    }

    /// Returns the running machine without a lease: its use does not keep the sandbox from being idle.
    pub(crate) fn machine(&self) -> Option<Arc<dyn Machine>> {
        let target = self.target.read();
        target.as_ref().map(|target| Arc::clone(&target.machine))
    }

    /// Sends a command and awaits its reply; `None` when the driver has ended.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

// === impl InitialState ===

impl InitialState {
    fn info(&self, spec: &SandboxSpec) -> SandboxInfo {
        let now = SystemTime::now();
        let info = SandboxInfo {
            id: spec.id.clone(),
            template: spec.template.clone(),
            state: SandboxState::Starting,
            epoch: spec.epoch,
            started_at: now,
            since: now,
            resources: Resources {
                vcpus: 0,
                memory: 0,
                disk: 0,
            },
            snapshot: None,
            scope: pool_api::SnapshotScope::Full,
            last_error: None,
        };
        match self {
            Self::Fork { resources, .. } => SandboxInfo {
                resources: *resources,
                ..info
            },
            Self::Paused { record, snapshot } => SandboxInfo {
                state: SandboxState::Paused,
                epoch: record.epoch.next(),
                started_at: record.started_at,
                since: record.since,
                resources: record.resources,
                snapshot: Some(snapshot.id().clone()),
                scope: record.scope,
                ..info
            },
        }
    }

    fn lifecycle(
        self,
        spec: &SandboxSpec,
        replies: &mut Replies,
    ) -> (Lifecycle<Pin>, Vec<Effect<Pin>>) {
        match self {
            Self::Fork { origin, reply, .. } => {
                let asked = Instant::now();
                let waiter = replies.add(Pending::Enter { asked, reply });
                Lifecycle::fork(waiter, spec.epoch, origin)
            }
            Self::Paused { record, snapshot } => {
                let source = WakeSource {
                    snapshot,
                    scope: record.scope,
                };
                // An epoch that was not recorded may have run.
                (Lifecycle::paused(record.epoch.next(), source), Vec::new())
            }
        }
    }
}
