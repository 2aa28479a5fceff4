//! The fake host passes the contract of `Node`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a harness is test code")]

use async_trait::async_trait;
use pool_api::{
    Node, SandboxId, TemplateName,
    contract::{self, Faults, Harness, Room},
    fake::{FakeNode, WakeScript},
};

struct FakeHarness(FakeNode);

impl Harness for FakeHarness {
    fn node(&self) -> &dyn Node {
        &self.0
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
        self.0.script_wake(WakeScript::Fails);
    }

    fn fail_next_capture(&self) {
        self.0.fail_next_capture();
    }

    fn hold_pauses(&self) {
        self.0.hold_pauses(true);
    }

    async fn wait_for_held_pauses(&self, count: u64) {
        self.0.wait_for_pausing(count).await;
    }

    fn release_pauses(&self) {
        self.0.hold_pauses(false);
    }

    fn crash(&self, id: &SandboxId) {
        self.0.crash(id);
    }

    fn set_room(&self, room: Room) {
        self.0.set_full(room == Room::Full);
    }
}

#[tokio::test]
async fn fake_node_passes_the_contract() {
    contract::check(&FakeHarness(FakeNode::with_templates(&["base"]))).await;
}
