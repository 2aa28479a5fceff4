//! Scripts: operations of a fake host that are held, slow or fail.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use super::{FakeNode, lock, sandbox::Connections};
use crate::{Broken, Port, SandboxId};

/// The behaviour of a port of every guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortScript {
    /// No process listens.
    Closed,
    /// No process listens for this number of dials; then the echo server does.
    ClosedTimes(u32),
    /// Reads the head of a request and closes without a response.
    HangsUp,
    /// Answers `hello` without a length, and keeps the connection open.
    Endless,
    /// Connects to this address of the host.
    At(SocketAddr),
}

/// The outcome of the next wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeScript {
    /// The host has no room.
    NoRoom,
    /// It fails; the sandbox stays paused.
    Fails,
}

#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) ports: HashMap<Port, PortScript>,
    pub(super) next_wake: Option<WakeScript>,
    pub(super) no_room: bool,
    pub(super) next_capture_fails: bool,
    pub(super) pause_fails: bool,
    pub(super) snapshot_fails: bool,
    pub(super) release_fails: bool,
    pub(super) metrics_unanswered: bool,
    pub(super) metrics_delay: Duration,
    pub(super) console: Option<Vec<u8>>,
    pub(super) broken: Vec<Broken>,
    /// A sandbox that is not listed until the next call of [`crate::Node::broken`].
    pub(super) recovers: Option<SandboxId>,
    connections: Option<Connections>,
}

impl FakeNode {
    /// Sets the sandboxes and snapshots that are reported as broken.
    pub fn set_broken(&self, broken: Vec<Broken>) {
        lock(&self.0.script).broken = broken;
    }

    /// Makes a sandbox unreadable until the host looks for broken sandboxes, which finds it readable again.
    pub fn recover_at_next_look(&self, id: SandboxId) {
        lock(&self.0.script).recovers = Some(id);
    }

    /// Holds wakes that begin until called with false.
    pub fn hold_wakes(&self, hold: bool) {
        self.0.hold_wakes.send_replace(hold);
    }

    /// Holds creates that begin until called with false.
    pub fn hold_creates(&self, hold: bool) {
        self.0.hold_creates.send_replace(hold);
    }

    /// Holds pauses and snapshots that begin until called with false.
    pub fn hold_pauses(&self, hold: bool) {
        self.0.hold_pauses.send_replace(hold);
    }

    /// Scripts a port of every guest.
    pub fn script_port(&self, port: Port, script: PortScript) {
        lock(&self.0.script).ports.insert(port, script);
    }

    /// Scripts the next wake.
    pub fn script_wake(&self, script: WakeScript) {
        lock(&self.0.script).next_wake = Some(script);
    }

    /// While true, connections of an epoch that ends by a pause stay open.
    pub fn set_stale(&self, stale: bool) {
        lock(&self.0.script).connections = stale.then_some(Connections::StayOpen);
    }

    /// While true, creates and forks fail with `NoRoom`.
    pub fn set_full(&self, full: bool) {
        lock(&self.0.script).no_room = full;
    }

    /// Makes the next pause or snapshot fail.
    pub fn fail_next_capture(&self) {
        lock(&self.0.script).next_capture_fails = true;
    }

    /// Returns whether the capture that begins now fails. `always`: it does so by another script.
    pub(super) fn capture_fails(&self, always: impl FnOnce(&Script) -> bool) -> bool {
        let mut script = lock(&self.0.script);
        std::mem::take(&mut script.next_capture_fails) || always(&script)
    }

    /// While true, pauses fail and the sandbox keeps running.
    pub fn set_pause_fails(&self, fails: bool) {
        lock(&self.0.script).pause_fails = fails;
    }

    /// While true, snapshots fail.
    pub fn set_snapshot_fails(&self, fails: bool) {
        lock(&self.0.script).snapshot_fails = fails;
    }

    /// While true, releases of snapshots fail.
    pub fn set_release_fails(&self, fails: bool) {
        lock(&self.0.script).release_fails = fails;
    }

    /// Sets the console of every guest.
    pub fn set_console(&self, bytes: impl Into<Vec<u8>>) {
        lock(&self.0.script).console = Some(bytes.into());
    }

    /// While true, no guest answers for its metrics.
    pub fn set_metrics_unanswered(&self, unanswered: bool) {
        lock(&self.0.script).metrics_unanswered = unanswered;
    }

    /// Delays every metrics answer.
    pub fn set_metrics_delay(&self, delay: Duration) {
        lock(&self.0.script).metrics_delay = delay;
    }

    pub(super) fn connections_after_pause(&self) -> Connections {
        lock(&self.0.script)
            .connections
            .unwrap_or(Connections::Close)
    }

    pub(super) fn keeps_stale_connections(&self) -> bool {
        self.connections_after_pause() == Connections::StayOpen
    }
}
