//! Contract suite on the real monitor with the flat guest.

#![allow(clippy::unwrap_used, reason = "a harness fails by panicking")]

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;
use vmm_api::{
    Blank, BlankSpec, Hypervisor, Machine, check_userfaultfd,
    contract::{self, Capability, Harness, Kernel, Workload},
    flat,
};

use crate::fixture::{Fixture, next_ring};

const PAGES: u32 = 8;

#[tokio::test]
async fn monitor_meets_the_hypervisor_contract() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    contract::check(Arc::new(FlatHarness(fixture))).await;
}

/// The flat guest has no vsock driver, so the rows about streams are skipped.
#[derive(Debug)]
struct FlatHarness(Fixture);

#[derive(Debug)]
struct FlatGuest {
    kernel: Kernel,
    doorbell: watch::Receiver<Option<u32>>,
}

#[async_trait]
impl Harness for FlatHarness {
    fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::Process => true,
            Capability::Paging => check_userfaultfd().is_ok(),
            Capability::Vsock => false,
        }
    }

    fn hypervisor(&self) -> &dyn Hypervisor {
        self.0.kvm()
    }

    fn blank_spec(&self) -> BlankSpec {
        self.0.blank_spec()
    }

    async fn blank(&self, kernel: Kernel) -> (Box<dyn Blank>, Box<dyn Workload>) {
        let blank = self.0.blank().await;
        let doorbell = blank.doorbell();
        (Box::new(blank), Box::new(FlatGuest { kernel, doorbell }))
    }

    fn kernel(&self, kernel: Kernel) -> File {
        let image = match kernel {
            Kernel::Counting => flat::kernel(PAGES),
            Kernel::CountingWithDisk => flat::kernel_with_disk(),
            Kernel::Resetting => flat::resetting_kernel(),
        };
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&image, 0).unwrap();
        file
    }

    fn crash(&self, machine: &dyn Machine) {
        let pid = i32::try_from(machine.pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    fn vsock_ports(&self) -> (u32, u32) {
        (1, 2)
    }
}

impl FlatGuest {
    fn page_count(&self) -> u32 {
        match self.kernel {
            Kernel::Counting => PAGES,
            Kernel::CountingWithDisk | Kernel::Resetting => 1,
        }
    }
}

#[async_trait]
impl Workload for FlatGuest {
    async fn ready(&mut self, _: &dyn Machine) {
        let ring = *self.doorbell.wait_for(Option::is_some).await.unwrap();
        assert_eq!(ring, Some(flat::READY));
    }

    async fn step(&mut self, machine: &dyn Machine) -> u32 {
        let ring = next_ring(machine, &mut self.doorbell).await;
        assert_eq!(ring % self.page_count(), 0, "the pages differ");
        ring / self.page_count()
    }

    /// The guest resets by itself.
    async fn reset(&mut self, _: &dyn Machine) {}

    fn pages(&self) -> Vec<u64> {
        let first = flat::PAGES / vmm_api::PAGE_SIZE as u64;
        let counters = first..first + u64::from(self.page_count());
        match self.kernel {
            Kernel::Counting | Kernel::Resetting => counters.collect(),
            Kernel::CountingWithDisk => flat::DISK_PAGES.into_iter().chain(counters).collect(),
        }
    }

    fn block(&self) -> u64 {
        flat::DISK_BLOCK
    }
}
