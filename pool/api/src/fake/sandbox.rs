//! The state of one fake sandbox.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::guest::Guest;
use crate::{
    SandboxInfo, SandboxSpec, SandboxState, SnapshotScope, Stage, Start, TakenSnapshot, WakeReport,
};

/// The present state of a sandbox. Its guest accepts connections while it runs.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) info: SandboxInfo,
    pub(super) spec: SandboxSpec,
    /// The kind of start of the present or last epoch.
    pub(super) start: Start,
    pub(super) pause: Option<Pause>,
    pub(super) guest: Arc<Guest>,
    pub(super) revoked: watch::Sender<bool>,
    /// Guests of earlier epochs whose connections are still open.
    stale: Vec<Arc<Guest>>,
}

/// A pause in progress.
#[derive(Debug)]
pub(super) struct Pause {
    pub(super) scope: SnapshotScope,
    /// Callers that wait for the sandbox to run again.
    pub(super) wakers: u64,
    pub(super) outcome: watch::Sender<Option<PauseOutcome>>,
}

/// The outcome that concurrent callers of a pause share.
#[derive(Debug, Clone)]
pub(super) enum PauseOutcome {
    Taken(TakenSnapshot),
    Failed,
}

/// Whether connections of the ending epoch close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connections {
    /// They close.
    Close,
    /// They stay open, as if the end were not noticed yet.
    StayOpen,
}

impl Sandbox {
    pub(super) fn new(info: SandboxInfo, spec: SandboxSpec, start: Start) -> Self {
        let guest = Arc::new(Guest::new(&info));
        Self {
            info,
            spec,
            start,
            pause: None,
            guest,
            revoked: watch::channel(false).0,
            stale: Vec::new(),
        }
    }

    /// Sets the state and its time.
    pub(super) fn enter_state(&mut self, state: SandboxState) {
        self.info.state = state;
        self.info.since = SystemTime::now();
    }

    /// Starts the next epoch.
    pub(super) fn start_epoch(&mut self, start: Start) {
        self.start = start;
        self.info.epoch = self.info.epoch.next();
        self.info.started_at = SystemTime::now();
        self.run();
    }

    /// Runs with a new guest, in the present epoch.
    pub(super) fn run(&mut self) {
        self.enter_state(SandboxState::Running);
        self.guest = Arc::new(Guest::new(&self.info));
        self.revoked = watch::channel(false).0;
    }

    /// Revokes the leases of the present epoch.
    pub(super) fn revoke(&self) {
        self.revoked.send_replace(true);
    }

    /// Ends the guest and enters `state`.
    pub(super) fn end_epoch(&mut self, state: SandboxState, connections: Connections) {
        if connections == Connections::StayOpen {
            self.stale.push(self.guest.clone());
            self.guest = Arc::new(Guest::new(&self.info));
        }
        self.enter_state(state);
        self.revoke();
        self.guest.end();
    }

    /// Reports the present epoch's start.
    pub(super) fn report(&self) -> WakeReport {
        let stages = vec![
            (Stage::Queue, Duration::from_millis(1)),
            (Stage::Load, Duration::from_millis(2)),
        ];
        WakeReport {
            start: self.start,
            stages,
        }
    }
}
