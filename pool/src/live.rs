//! A machine, and everything that must be there as long as it is.

use std::sync::Arc;

use pool_api::{Resources, SnapshotId, SnapshotScope, TemplateName};
use snapshotter::{Chain, Committed, Cut, Damage, DiskCut, DiskManifest, Pin, StackPager};
use tokio::sync::{mpsc, watch};
use tracing::warn;
use vmm_api::{Exit, Machine, MemorySource};

use crate::{
    capacity::Permit,
    home::Home,
    host::{Interrupted, blocking},
    run_dir::RunDir,
};

/// A machine of a sandbox.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
    /// What its pager could not serve.
    pub(crate) damage: mpsc::UnboundedReceiver<Damage>,
    pub(crate) pager: Option<Arc<StackPager>>,
    pub(crate) lineage: Lineage,
    /// Keeps shared memory in RAM for others who fork the same snapshot.
    pub(crate) _memory: Option<MemorySource>,
    pub(crate) _permit: Permit,
    pub(crate) _run_dir: RunDir,
}

/// What a machine's memory and disk lie on.
#[derive(Debug)]
pub(crate) struct Lineage {
    template: TemplateName,
    resources: Resources,
    /// What it was loaded from; held as long as it runs.
    loaded_from: Option<Pin>,
    memory: Chain,
    disks: Vec<DiskManifest>,
    /// The newest snapshot made of it; holds the layers its disk lies on since.
    newest: Option<Pin>,
}

// === impl Live ===

impl Live {
    /// Ends the machine. What its pager learned is left behind.
    pub(crate) async fn end(self) {
        self.machine.kill().await;
        let Some(pager) = self.pager else {
            return;
        };
        let stopped = blocking(move || {
            pager.leave_working_set();
            pager.stop();
        });
        if let Err(Interrupted) = stopped.await {
            warn!("a pager was not stopped in order");
        }
    }

    /// What a snapshot of it is cut from.
    pub(crate) fn cut(&self, home: &Home) -> Cut {
        let disk = |disk: &DiskManifest| DiskCut {
            size: disk.size,
            base: disk.base.clone(),
            chain: disk.chain.clone(),
            top: home.top_path(),
        };
        Cut {
            template: self.lineage.template.clone(),
            resources: self.lineage.resources,
            parent: self
                .lineage
                .loaded_from
                .as_ref()
                .map(|pin| pin.id().clone()),
            memory: self.lineage.memory.clone(),
            disks: self.lineage.disks.iter().map(disk).collect(),
            working_set: self
                .pager
                .as_ref()
                .map(|pager| pager.touched())
                .unwrap_or_default(),
        }
    }
}

// === impl Lineage ===

impl Lineage {
    /// Of a machine that was booted on these disks.
    pub(crate) fn booted(
        template: TemplateName,
        resources: Resources,
        disks: Vec<DiskManifest>,
    ) -> Self {
        Self {
            template,
            resources,
            loaded_from: None,
            memory: Chain::default(),
            disks,
            newest: None,
        }
    }

    /// Of a machine that was made of a snapshot, or of its disks alone; `forked`: as somebody else.
    pub(crate) fn loaded(
        pin: Pin,
        manifest: &snapshotter::Manifest,
        from: SnapshotScope,
        forked: bool,
    ) -> Self {
        let chain = |chain: &Chain| {
            let chain = chain.owned_by(pin.id());
            if forked { chain.inherited() } else { chain }
        };
        let disk = |disk: &DiskManifest| DiskManifest {
            chain: chain(&disk.chain),
            ..disk.clone()
        };
        Self {
            template: manifest.template.clone(),
            resources: manifest.resources,
            memory: match from {
                SnapshotScope::Full => chain(&manifest.memory),
                SnapshotScope::DiskOnly => Chain::default(),
            },
            disks: manifest.disks.iter().map(disk).collect(),
            loaded_from: Some(pin),
            newest: None,
        }
    }

    /// A snapshot was made and the machine goes on. Says whether its disk now lies on other layers, so that it needs new
    /// tops. Its memory does not: it is compared with what was loaded, whatever was captured since.
    pub(crate) fn advance(&mut self, committed: &Committed) -> bool {
        let id: &SnapshotId = committed.pin.id();
        let mut moved = false;
        for (disk, made) in self.disks.iter_mut().zip(&committed.manifest.disks) {
            let chain = made.chain.owned_by(id);
            moved |= chain != disk.chain;
            disk.chain = chain;
        }
        self.newest = Some(committed.pin.clone());
        moved
    }

    /// Sizes of the disks in bytes.
    pub(crate) fn disk_sizes(&self) -> Vec<u64> {
        self.disks.iter().map(|disk| disk.size).collect()
    }
}
