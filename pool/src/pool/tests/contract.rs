use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use pool_api::{
    Node, SandboxId, TemplateName,
    contract::{self, Faults, Harness, Room},
};
use vmm_api::fake::Fault;

use super::Rig;
use crate::capacity::{Demand, Reservation};

/// The pool over the fake hypervisor.
struct PoolHarness {
    rig: Rig,
    captures_before: AtomicUsize,
    loads_before: AtomicUsize,
    full: Mutex<Option<Reservation>>,
}

impl Harness for PoolHarness {
    fn node(&self) -> &dyn Node {
        &*self.rig.pool
    }

    fn template(&self) -> TemplateName {
        "base".parse().unwrap()
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for PoolHarness {
    fn fail_next_start(&self) {
        self.rig.fake.fail_next(Fault::Load);
    }

    fn fail_next_capture(&self) {
        self.rig.fake.fail_next(Fault::Capture);
    }

    fn hold_pauses(&self) {
        let captures = self.rig.fake.counts().captures;
        self.captures_before.store(captures, Ordering::SeqCst);
        self.rig.fake.hold_captures();
    }

    async fn wait_for_held_pauses(&self, count: u64) {
        let before = self.captures_before.load(Ordering::SeqCst);
        let count = usize::try_from(count).unwrap();
        self.rig.fake.captures_begun(before + count).await;
    }

    fn release_pauses(&self) {
        self.rig.fake.release_captures();
    }

    fn hold_starts(&self) {
        let loads = self.rig.fake.counts().loads;
        self.loads_before.store(loads, Ordering::SeqCst);
        self.rig.fake.hold_loads();
    }

    async fn wait_for_held_starts(&self, count: u64) {
        let before = self.loads_before.load(Ordering::SeqCst);
        let count = usize::try_from(count).unwrap();
        while self.rig.fake.counts().loads < before + count {
            tokio::task::yield_now().await;
        }
    }

    fn release_starts(&self) {
        self.rig.fake.release_loads();
    }

    fn crash(&self, _id: &SandboxId) {
        self.rig.fake.crash_all();
    }

    fn set_room(&self, room: Room) {
        let host = &self.rig.pool.host;
        *self.full.lock() = match room {
            Room::Free => None,
            Room::Full => Some(
                host.capacity
                    .reserve(Demand::of_memory(host.config.limits.memory))
                    .unwrap(),
            ),
        };
    }
}

#[tokio::test]
async fn pool_passes_the_contract() {
    let harness = PoolHarness {
        rig: Rig::new().await,
        captures_before: AtomicUsize::new(0),
        loads_before: AtomicUsize::new(0),
        full: Mutex::new(None),
    };
    contract::check(&harness).await;
}
