//! A hypervisor whose machines live in this process, for the tests of others.
//!
//! A guest here is a map of pages, a disk over real files and a few tasks that answer on real Unix sockets: the agent's
//! port takes `/init` and `/health`, the relay's port takes a preamble and then lines (see [`guest`]). Captures write
//! real page files, so snapshots made of them are real, and loading one gives the guest its memory back. Memory comes as
//! `Cow` only. What should fail is said beforehand, with [`FakeHypervisor::fail_next`].

mod disk;
pub mod guest;
mod machine;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::machine::{FakeMachine, Guest};
use crate::{
    Blank, BlankSpec, BootError, BootSpec, Exit, Hypervisor, LoadError, LoadSpec, Machine,
    SpawnError,
};

/// The hypervisor.
#[derive(Debug, Clone, Default)]
pub struct FakeHypervisor {
    shared: Arc<Shared>,
}

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Making a blank.
    Spawn,
    /// Loading a guest.
    Load,
    /// Letting the vCPUs run.
    Resume,
    /// Capturing: refused.
    Capture,
    /// Capturing: the caller's task panics.
    CapturePanic,
    /// Capturing: no space.
    Space,
    /// The agent's answer to `/init`.
    Init,
    /// The agent's answer to `/freeze`.
    Freeze,
    /// Going on with new top layers.
    Advance,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Blanks made.
    pub blanks: usize,
    /// Guests booted.
    pub boots: usize,
    /// Guests loaded.
    pub loads: usize,
    /// Captures begun.
    pub captures: usize,
    /// Machines that have not ended.
    pub live: usize,
}

#[derive(Debug)]
pub(crate) struct Shared {
    faults: Mutex<BTreeMap<Fault, usize>>,
    blanks: AtomicUsize,
    boots: AtomicUsize,
    loads: AtomicUsize,
    pub(crate) captures: watch::Sender<usize>,
    pub(crate) live: AtomicUsize,
    pub(crate) held: watch::Sender<bool>,
    pub(crate) loads_held: watch::Sender<bool>,
    pub(crate) inits: Mutex<Vec<serde_json::Value>>,
    pub(crate) crash: watch::Sender<u64>,
}

/// A blank.
#[derive(Debug)]
struct FakeBlank {
    spec: BlankSpec,
    shared: Arc<Shared>,
}

// === impl FakeHypervisor ===

impl FakeHypervisor {
    /// A hypervisor with no machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next one of these fail.
    pub fn fail_next(&self, fault: Fault) {
        *self.shared.faults.lock().entry(fault).or_default() += 1;
    }

    /// Captures wait until [`FakeHypervisor::release_captures`].
    pub fn hold_captures(&self) {
        self.shared.held.send_replace(true);
    }

    /// Held captures go on.
    pub fn release_captures(&self) {
        self.shared.held.send_replace(false);
    }

    /// Loads wait until [`FakeHypervisor::release_loads`].
    pub fn hold_loads(&self) {
        self.shared.loads_held.send_replace(true);
    }

    /// Held loads go on.
    pub fn release_loads(&self) {
        self.shared.loads_held.send_replace(false);
    }

    /// Returns when so many captures were begun.
    pub async fn captures_begun(&self, count: usize) {
        let mut captures = self.shared.captures.subscribe();
        // The sender lives as long as `self`.
        let _ = captures.wait_for(|begun| *begun >= count).await;
    }

    /// Ends every machine as if its process had been killed.
    pub fn crash_all(&self) {
        self.shared.crash.send_modify(|crash| *crash += 1);
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            blanks: self.shared.blanks.load(Ordering::SeqCst),
            boots: self.shared.boots.load(Ordering::SeqCst),
            loads: self.shared.loads.load(Ordering::SeqCst),
            captures: *self.shared.captures.borrow(),
            live: self.shared.live.load(Ordering::SeqCst),
        }
    }

    /// The bodies of every `/init` so far.
    pub fn inits(&self) -> Vec<serde_json::Value> {
        self.shared.inits.lock().clone()
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn blank(&self, spec: BlankSpec) -> Result<Box<dyn Blank>, SpawnError> {
        if self.shared.fails(Fault::Spawn) {
            let source = io::ErrorKind::NotFound.into();
            return Err(SpawnError::Spawn {
                program: "fake".to_owned(),
                source,
            });
        }
        self.shared.blanks.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeBlank {
            spec,
            shared: Arc::clone(&self.shared),
        }))
    }
}

// === impl Shared ===

impl Default for Shared {
    fn default() -> Self {
        Self {
            faults: Mutex::default(),
            blanks: AtomicUsize::default(),
            boots: AtomicUsize::default(),
            loads: AtomicUsize::default(),
            captures: watch::Sender::new(0),
            live: AtomicUsize::default(),
            held: watch::Sender::new(false),
            loads_held: watch::Sender::new(false),
            inits: Mutex::default(),
            crash: watch::Sender::new(0),
        }
    }
}

impl Shared {
    pub(crate) fn fails(&self, fault: Fault) -> bool {
        let mut faults = self.faults.lock();
        match faults.get_mut(&fault) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// Returns when it is no longer held.
pub(crate) async fn released(held: &watch::Sender<bool>) {
    // The sender is ours to borrow, so it lives.
    let _ = held.subscribe().wait_for(|held| !held).await;
}

// === impl FakeBlank ===

#[async_trait]
impl Blank for FakeBlank {
    async fn boot(self: Box<Self>, spec: BootSpec) -> Result<Box<dyn Machine>, BootError> {
        self.shared.boots.fetch_add(1, Ordering::SeqCst);
        let refused = |error: io::Error| BootError::Refused(error.to_string());
        if spec.kernel.metadata().map_err(refused)?.len() == 0 {
            return Err(BootError::Refused("the kernel is empty".to_owned()));
        }
        let guest = Guest::boot(self.spec.memory, spec.disks, spec.console).map_err(refused)?;
        Ok(Box::new(FakeMachine::start(guest, true, self.shared)))
    }

    async fn load(self: Box<Self>, spec: LoadSpec) -> Result<Box<dyn Machine>, LoadError> {
        self.shared.loads.fetch_add(1, Ordering::SeqCst);
        released(&self.shared.loads_held).await;
        if self.shared.fails(Fault::Load) {
            return Err(LoadError::Refused("told to fail".to_owned()));
        }
        let guest = Guest::load(self.spec.memory, spec)?;
        Ok(Box::new(FakeMachine::start(guest, false, self.shared)))
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// How a machine ends when its process is killed from outside.
pub(crate) fn died() -> Exit {
    Exit::Died("signal 9".to_owned())
}
