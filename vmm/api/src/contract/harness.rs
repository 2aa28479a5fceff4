//! Adapter of one implementation to the suite.

use std::{fmt, fs::File};

use async_trait::async_trait;

use super::files::empty;
use crate::{
    Blank, BlankSpec, BootError, BootSpec, Disk, Exit, Hypervisor, LoadError, LoadSpec, Machine,
};

/// Ability that an implementation or its guest may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Each monitor is a process of its own. The fake has none.
    Process,
    /// [`crate::MemorySource::Paged`] is supported. The fake has no userfaultfd.
    Paging,
    /// The guest has a vsock driver. The flat guest has none.
    Vsock,
}

/// Kernel of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Counts: each [`Workload::step`] increments a counter in memory.
    Counting,
    /// The same, and each step writes a block of the first disk.
    CountingWithDisk,
    /// Resets the machine, by itself or on [`Workload::reset`].
    Resetting,
}

/// Connects the suite to one implementation.
#[async_trait]
pub trait Harness: fmt::Debug + Send + Sync {
    /// Returns whether the implementation has this capability.
    fn has(&self, capability: Capability) -> bool;

    /// Returns the hypervisor.
    fn hypervisor(&self) -> &dyn Hypervisor;

    /// Creates a run directory and returns a spec that names it, with one vCPU and 16 MiB.
    fn blank_spec(&self) -> BlankSpec;

    /// Spawns a blank, with the workload of the guest that it will run.
    async fn blank(&self, kernel: Kernel) -> (Box<dyn Blank>, Box<dyn Workload>);

    /// Opens a kernel file.
    fn kernel(&self, kernel: Kernel) -> File;

    /// Ends the machine's process from outside.
    fn crash(&self, machine: &dyn Machine);

    /// Returns a vsock port that is open in the guest, and one that is closed.
    fn vsock_ports(&self) -> (u32, u32);
}

/// Control of the guest's program.
#[async_trait]
pub trait Workload: fmt::Debug + Send + Sync {
    /// Waits until the guest has executed after a boot, without resuming the machine.
    async fn ready(&mut self, machine: &dyn Machine);

    /// Resumes the machine and waits until the guest has incremented its counter once. Returns the value before. The
    /// machine is running afterwards.
    async fn step(&mut self, machine: &dyn Machine) -> u32;

    /// Makes a [`Kernel::Resetting`] guest reset.
    async fn reset(&mut self, machine: &dyn Machine);

    /// Returns the pages that one step writes, in ascending order.
    fn pages(&self) -> Vec<u64>;

    /// Returns the disk block that one step writes.
    fn block(&self) -> u64;
}

/// A machine and the workload of its guest.
#[derive(Debug)]
pub struct Guest {
    pub(super) machine: Box<dyn Machine>,
    pub(super) workload: Box<dyn Workload>,
}

impl Guest {
    /// Boots a kernel and waits until the guest has executed.
    pub(super) async fn boot(harness: &dyn Harness, kernel: Kernel, disks: Vec<Disk>) -> Self {
        let (blank, mut workload) = harness.blank(kernel).await;
        let machine = boot(harness, blank, kernel, disks).await.unwrap();
        workload.ready(&*machine).await;
        Self { machine, workload }
    }

    /// Boots a counting guest without disks and pauses it.
    pub(super) async fn paused(harness: &dyn Harness) -> Self {
        let guest = Self::boot(harness, Kernel::Counting, Vec::new()).await;
        guest.machine.pause().await.unwrap();
        guest
    }

    /// Loads a guest.
    pub(super) async fn load(
        harness: &dyn Harness,
        kernel: Kernel,
        spec: LoadSpec,
    ) -> Result<Self, LoadError> {
        let (blank, workload) = harness.blank(kernel).await;
        let machine = blank.load(spec).await?;
        Ok(Self { machine, workload })
    }

    pub(super) async fn step(&mut self) -> u32 {
        self.workload.step(&*self.machine).await
    }

    /// Steps, then pauses.
    pub(super) async fn step_and_pause(&mut self) -> u32 {
        let before = self.step().await;
        self.machine.pause().await.unwrap();
        before
    }

    /// Waits for the end of the machine.
    pub(super) async fn exit(&self) -> Exit {
        let mut exit = self.machine.exit();
        exit.wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap()
    }
}

/// Boots a kernel without waiting for the guest.
pub(super) async fn boot(
    harness: &dyn Harness,
    blank: Box<dyn Blank>,
    kernel: Kernel,
    disks: Vec<Disk>,
) -> Result<Box<dyn Machine>, BootError> {
    let spec = BootSpec {
        kernel: harness.kernel(kernel),
        command_line: String::new(),
        disks,
        console: empty(),
    };
    blank.boot(spec).await
}
