//! The contract of `pool_api::Node` on the real pool, monitor and guest.

use std::sync::Arc;

use pool::{Artefacts, Config, Limits, Pool};
use pool_api::{
    Node, TemplateName,
    contract::{self, Faults, Harness},
};
use vmm_api::{FIRST_USER, Kvm};

use crate::rig::work_dir_with_template;

struct KvmHarness(Arc<Pool>);

impl Harness for KvmHarness {
    fn node(&self) -> &dyn Node {
        &*self.0
    }

    fn template(&self) -> TemplateName {
        "base".parse().unwrap()
    }

    fn faults(&self) -> Option<&dyn Faults> {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_over_kvm_passes_the_contract() {
    let Some((artefacts, work)) = work_dir_with_template().await else {
        return;
    };
    let guest_file = |name: &str| artefacts.guest.join(name).canonicalize().unwrap();
    let files = Artefacts {
        kernel: guest_file("vmlinux"),
        disk: guest_file("base.ext4"),
        command_line: catnap::KERNEL_COMMAND_LINE.to_owned(),
    };
    let hypervisor = Arc::new(Kvm::jailed(&artefacts.vmm, FIRST_USER).unwrap());
    let limits = Limits {
        memory: 8 << 30,
        machines: 16,
    };
    let config = Config::new(work.data(), files, hypervisor, limits);
    let harness = KvmHarness(Pool::start(config).unwrap());
    contract::check(&harness).await;
    harness.0.shutdown().await;
    let remaining = work.remaining();
    assert!(remaining.sandbox_files.is_empty(), "{remaining:?}");
}
