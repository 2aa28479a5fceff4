//! Hypervisor whose machines are tasks of this process, for the tests of its callers.
//!
//! A guest is a map of pages, disks over real files, and tasks that serve real Unix sockets (see [`guest`]). Captures
//! write real page files, so snapshots of them are real, and loading one restores the guest's memory. Memory is
//! [`crate::MemorySource::Cow`] only. Tests inject faults with [`FakeHypervisor::fail_next`]. The contract suite
//! ([`crate::contract`]) holds it to the behaviour of the real monitor.

mod controls;
mod disk;
pub mod guest;
mod instance;
mod machine;
mod state;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;

pub use self::controls::{Counts, Fault};
use self::{
    controls::{Controls, released},
    instance::{Instance, RunState},
    machine::FakeMachine,
    state::{GuestState, Shape},
};
use crate::{
    Blank, BlankSpec, BootError, BootSpec, Hypervisor, LoadError, LoadReport, LoadSpec, Machine,
    SpawnError,
};

/// Bytes of which guest memory is a multiple, and the maximum.
const MEMORY_GRANULE: u64 = 2 << 20;
const MEMORY_LIMIT: u64 = 1 << 40;
const VCPU_LIMIT: u8 = 32;

/// Hypervisor whose machines are tasks of this process.
#[derive(Debug, Clone, Default)]
pub struct FakeHypervisor {
    controls: Arc<Controls>,
}

/// A blank of the fake.
#[derive(Debug)]
struct FakeBlank {
    spec: BlankSpec,
    /// The crashes before it was spawned.
    crashes: u64,
    controls: Arc<Controls>,
}

// === impl FakeHypervisor ===

impl FakeHypervisor {
    /// Creates a hypervisor without machines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next operation of this kind fail. Calls add up.
    pub fn fail_next(&self, fault: Fault) {
        self.controls.inject(fault);
    }

    /// Blocks captures until [`FakeHypervisor::release_captures`].
    pub fn hold_captures(&self) {
        self.controls.captures_held.send_replace(true);
    }

    /// Unblocks captures.
    pub fn release_captures(&self) {
        self.controls.captures_held.send_replace(false);
    }

    /// Blocks loads until [`FakeHypervisor::release_loads`].
    pub fn hold_loads(&self) {
        self.controls.loads_held.send_replace(true);
    }

    /// Unblocks loads.
    pub fn release_loads(&self) {
        self.controls.loads_held.send_replace(false);
    }

    /// Waits until at least `count` captures have started.
    pub async fn captures_begun(&self, count: usize) {
        let mut captures = self.controls.captures.subscribe();
        // `self` owns the sender, so waiting cannot fail.
        let _ = captures.wait_for(|begun| *begun >= count).await;
    }

    /// Ends every machine as if its process had been killed from outside.
    pub fn crash_all(&self) {
        self.controls.crash.send_modify(|crash| *crash += 1);
    }

    /// Returns the number of operations so far.
    pub fn counts(&self) -> Counts {
        self.controls.counts()
    }

    /// Returns the body of every `POST /init` so far.
    pub fn inits(&self) -> Vec<serde_json::Value> {
        self.controls.inits.lock().clone()
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    /// A fake has no processes.
    async fn drained(&self) {}

    async fn blank(&self, spec: BlankSpec) -> Result<Box<dyn Blank>, SpawnError> {
        let fail = |source| SpawnError::Spawn {
            program: "fake".to_owned(),
            source,
        };
        if self.controls.take_fault(Fault::Spawn) {
            return Err(fail(io::Error::other("injected fault")));
        }
        std::fs::metadata(&spec.run_dir).map_err(fail)?;
        if spec.vcpus == 0 || spec.vcpus > VCPU_LIMIT {
            return Err(SpawnError::Prepare(format!(
                "{} vCPUs requested",
                spec.vcpus
            )));
        }
        if spec.memory == 0
            || spec.memory > MEMORY_LIMIT
            || !spec.memory.is_multiple_of(MEMORY_GRANULE)
        {
            return Err(SpawnError::Prepare(format!(
                "{} bytes of memory requested",
                spec.memory
            )));
        }
        self.controls.blanks.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeBlank {
            spec,
            crashes: *self.controls.crash.borrow(),
            controls: Arc::clone(&self.controls),
        }))
    }
}

// === impl FakeBlank ===

impl FakeBlank {
    fn start(self, guest: GuestState, load_report: Option<LoadReport>) -> Box<dyn Machine> {
        let run_state = match load_report {
            Some(_) => RunState::Paused,
            None => RunState::Running,
        };
        let instance = Instance::start(guest, run_state, self.controls);
        Box::new(FakeMachine::new(instance, load_report))
    }

    fn shape(&self) -> Shape {
        Shape {
            vcpus: self.spec.vcpus,
            memory: self.spec.memory,
        }
    }
}

#[async_trait]
impl Blank for FakeBlank {
    async fn boot(self: Box<Self>, spec: BootSpec) -> Result<Box<dyn Machine>, BootError> {
        self.controls.boots.fetch_add(1, Ordering::SeqCst);
        let refused = |error: io::Error| BootError::Refused(error.to_string());
        if spec.kernel.metadata().map_err(refused)?.len() == 0 {
            return Err(BootError::Refused("the kernel is empty".to_owned()));
        }
        let guest = GuestState::boot(self.shape(), spec.disks, spec.console).map_err(refused)?;
        Ok(self.start(guest, None))
    }

    async fn load(self: Box<Self>, spec: LoadSpec) -> Result<Box<dyn Machine>, LoadError> {
        self.controls.loads.fetch_add(1, Ordering::SeqCst);
        released(&self.controls.loads_held).await;
        if self.controls.take_fault(Fault::Load) {
            return Err(LoadError::Refused("injected fault".to_owned()));
        }
        let guest = GuestState::load(self.shape(), spec)?;
        Ok(self.start(guest, Some(machine::load_report())))
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn is_alive(&self) -> bool {
        *self.controls.crash.borrow() == self.crashes
    }
}
