//! Faults, barriers and counters that a test shares with the machines of the fake.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::watch;

/// An operation that a test can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Spawning a blank.
    Spawn,
    /// Loading a guest.
    Load,
    /// Resuming a machine.
    Resume,
    /// Capturing a machine: the monitor refuses.
    Capture,
    /// Capturing a machine: the call panics.
    CapturePanic,
    /// Capturing a machine: no space left.
    Space,
    /// The agent's response to `POST /init`.
    Init,
    /// The agent never responds to `POST /init`.
    InitHangs,
    /// The agent's response to `POST /freeze`.
    Freeze,
    /// The agent's response to `POST /unfreeze`.
    Thaw,
    /// Sealing the top layers.
    Advance,
}

/// Numbers of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Blanks spawned.
    pub blanks: usize,
    /// Guests booted.
    pub boots: usize,
    /// Guests loaded.
    pub loads: usize,
    /// Captures started.
    pub captures: usize,
    /// Machines that have not ended.
    pub live: usize,
}

/// State that a test shares with all machines of one hypervisor.
#[derive(Debug)]
pub(super) struct Controls {
    faults: Mutex<BTreeMap<Fault, usize>>,
    pub(super) blanks: AtomicUsize,
    pub(super) boots: AtomicUsize,
    pub(super) loads: AtomicUsize,
    pub(super) captures: watch::Sender<usize>,
    pub(super) live: AtomicUsize,
    pub(super) captures_held: watch::Sender<bool>,
    pub(super) loads_held: watch::Sender<bool>,
    pub(super) inits: Mutex<Vec<serde_json::Value>>,
    pub(super) crash: watch::Sender<u64>,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            faults: Mutex::default(),
            blanks: AtomicUsize::default(),
            boots: AtomicUsize::default(),
            loads: AtomicUsize::default(),
            captures: watch::Sender::new(0),
            live: AtomicUsize::default(),
            captures_held: watch::Sender::new(false),
            loads_held: watch::Sender::new(false),
            inits: Mutex::default(),
            crash: watch::Sender::new(0),
        }
    }
}

impl Controls {
    pub(super) fn inject(&self, fault: Fault) {
        *self.faults.lock().entry(fault).or_default() += 1;
    }

    /// Consumes one injected fault of this kind, if any.
    pub(super) fn take_fault(&self, fault: Fault) -> bool {
        let mut faults = self.faults.lock();
        match faults.get_mut(&fault) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            blanks: self.blanks.load(Ordering::SeqCst),
            boots: self.boots.load(Ordering::SeqCst),
            loads: self.loads.load(Ordering::SeqCst),
            captures: *self.captures.borrow(),
            live: self.live.load(Ordering::SeqCst),
        }
    }
}

/// Waits until the barrier is down.
pub(super) async fn released(held: &watch::Sender<bool>) {
    // The caller borrows the sender, so waiting cannot fail.
    let _ = held.subscribe().wait_for(|held| !held).await;
}
