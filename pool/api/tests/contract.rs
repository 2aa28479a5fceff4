//! The fake host passes the contract of `Node`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a harness is test code")]

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use pool_api::{
    Node, SandboxId, TemplateName,
    contract::{self, Faults, Harness, Room},
    fake::{FakeNode, WakeScript},
};

struct FakeHarness {
    node: FakeNode,
    wakes_before: AtomicU64,
}

impl Harness for FakeHarness {
    fn node(&self) -> &dyn Node {
        &self.node
    }

    fn template(&self) -> TemplateName {
        "base".parse().unwrap()
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for FakeHarness {
    fn fail_next_start(&self) {
        self.node.script_wake(WakeScript::Fails);
    }

    fn fail_next_capture(&self) {
        self.node.fail_next_capture();
    }

    fn hold_pauses(&self) {
        self.node.hold_pauses(true);
    }

    async fn wait_for_held_pauses(&self, count: u64) {
        self.node.wait_for_pausing(count).await;
    }

    fn release_pauses(&self) {
        self.node.hold_pauses(false);
    }

    fn hold_starts(&self) {
        self.wakes_before.store(self.node.wakes(), Ordering::SeqCst);
        self.node.hold_wakes(true);
    }

    async fn wait_for_held_starts(&self, count: u64) {
        let before = self.wakes_before.load(Ordering::SeqCst);
        self.node.wait_for_wakes(before + count).await;
    }

    fn release_starts(&self) {
        self.node.hold_wakes(false);
    }

    fn crash(&self, id: &SandboxId) {
        self.node.crash(id);
    }

    fn set_room(&self, room: Room) {
        self.node.set_full(room == Room::Full);
    }
}

#[tokio::test]
async fn fake_node_passes_the_contract() {
    let harness = FakeHarness {
        node: FakeNode::with_templates(&["base"]),
        wakes_before: AtomicU64::new(0),
    };
    contract::check(&harness).await;
}
