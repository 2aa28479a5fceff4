//! How others reach a driver.

use std::{sync::Arc, time::SystemTime};

use parking_lot::RwLock;
use pool_api::{
    EnterError, Epoch, IfPaused, PauseCause, PauseError, Resources, SandboxInfo, SandboxSpec,
    SandboxState, SnapshotScope, TakenSnapshot,
};
use snapshotter::Pin;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{Instrument, info_span};
use vmm_api::Machine;

use super::Driver;
use crate::{
    cause::Shared,
    gate::Gate,
    home::{Home, Record},
    host::Host,
    lease::{Held, Inhabited},
};

/// Commands that may wait for the driver.
const INBOX: usize = 256;

/// How others reach a sandbox.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) spec: Arc<SandboxSpec>,
    pub(crate) home: Home,
    pub(crate) info: watch::Receiver<SandboxInfo>,
    gate: Arc<Gate>,
    /// What there is behind the gate while it is open.
    inhabited: Arc<RwLock<Option<Arc<Inhabited>>>>,
    inbox: mpsc::Sender<Command>,
}

/// What may be asked of a driver.
#[derive(Debug)]
pub(crate) enum Command {
    Enter {
        wake: IfPaused,
        asked: Instant,
        reply: oneshot::Sender<Result<Held, EnterError>>,
    },
    /// Wakes it on somebody's word, not for a request.
    Resume {
        from: SnapshotScope,
        asked: Instant,
        reply: oneshot::Sender<Result<Held, EnterError>>,
    },
    /// Puts it back to a snapshot of its own.
    Rollback {
        to: Own,
        asked: Instant,
        reply: oneshot::Sender<Result<Held, EnterError>>,
    },
    Pause {
        epoch: Option<Epoch>,
        keep: SnapshotScope,
        cause: PauseCause,
        reply: oneshot::Sender<Result<TakenSnapshot, PauseError>>,
    },
    Kill {
        reply: oneshot::Sender<()>,
    },
    /// A snapshot of the running machine, which goes on.
    Capture {
        keep: SnapshotScope,
        reply: oneshot::Sender<Result<Pin, NotCaptured>>,
    },
    /// The driver ends; the machine, if there is one, is killed.
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// A running sandbox that was not captured.
#[derive(Debug)]
pub(crate) enum NotCaptured {
    /// It does not run.
    State(SandboxState, Option<Own>),
    /// It could not be written down.
    Failed(Shared),
}

/// What a sandbox wakes from.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) pin: Pin,
    pub(crate) keep: SnapshotScope,
}

/// How a sandbox begins in this process.
#[derive(Debug)]
pub(crate) enum Beginning {
    /// As a fork, for the caller who waits.
    Fork {
        snapshot: Own,
        resources: Resources,
        reply: oneshot::Sender<Result<Held, EnterError>>,
    },
    /// As the snapshot it was.
    Paused { record: Box<Record>, own: Pin },
}

// === impl Handle ===

impl Handle {
    /// Starts a sandbox's driver.
    pub(crate) fn spawn(
        host: Arc<Host>,
        spec: Arc<SandboxSpec>,
        home: Home,
        beginning: Beginning,
    ) -> Arc<Self> {
        let gate = Arc::new(Gate::new());
        let inhabited = Arc::new(RwLock::new(None));
        let (sender, inbox) = mpsc::channel(INBOX);
        let info = watch::Sender::new(beginning.info(&spec));
        let handle = Self {
            spec: Arc::clone(&spec),
            home: home.clone(),
            info: info.subscribe(),
            gate: Arc::clone(&gate),
            inhabited: Arc::clone(&inhabited),
            inbox: sender,
        };
        let span = info_span!("sandbox", id = %spec.id);
        let driver = Driver::new(host, spec, home, gate, inhabited, info, inbox);
        tokio::spawn(driver.run(beginning).instrument(span));
        Arc::new(handle)
    }

    /// Lets somebody in without asking the driver; `None` when the gate is shut.
    pub(crate) fn enter_at_once(&self) -> Option<Held> {
        let pass = self.gate.enter()?;
        let inhabited = self.inhabited.read().as_ref().map(Arc::clone)?;
        Some(Held {
            inhabited,
            report: None,
            _pass: pass,
        })
    }

    /// The machine behind the gate, without going through it: nothing it is used for keeps the sandbox awake.
    pub(crate) fn machine(&self) -> Option<Arc<dyn Machine>> {
        let inhabited = self.inhabited.read();
        inhabited.as_ref().map(|inside| Arc::clone(&inside.machine))
    }

    /// Asks the driver; `None` when it is no more.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

// === impl Beginning ===

impl Beginning {
    fn info(&self, spec: &SandboxSpec) -> SandboxInfo {
        let now = SystemTime::now();
        let info =
            |state, epoch, started_at, since, resources, wakes_from: Option<Own>| SandboxInfo {
                id: spec.id.clone(),
                template: spec.template.clone(),
                state,
                epoch,
                started_at,
                since,
                resources,
                scope: wakes_from.as_ref().map(|own| own.keep).unwrap_or_default(),
                snapshot: wakes_from.map(|own| own.pin.id().clone()),
                last_error: None,
            };
        match self {
            Self::Fork { resources, .. } => info(
                SandboxState::Starting,
                spec.epoch,
                now,
                now,
                *resources,
                None,
            ),
            // A life that was not written down may have been lived; the next one is none of them.
            Self::Paused { record, own, .. } => info(
                SandboxState::Paused,
                record.epoch.next(),
                record.started_at,
                record.since,
                record.resources,
                Some(Own {
                    pin: own.clone(),
                    keep: record.keep,
                }),
            ),
        }
    }
}
