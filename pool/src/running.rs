//! A running VM and the resources it needs until it is destroyed.

use std::sync::Arc;

use pool_api::{Resources, SnapshotId, TemplateName};
use snapshotter::{
    CaptureSource, Chain, Committed, Damage, DiskManifest, DiskSource, Manifest, Pin, StackPager,
};
use tokio::sync::{mpsc, watch};
use tracing::warn;
use vmm_api::{Exit, Machine, MemorySource};

use crate::{
    blocking::{Interrupted, blocking},
    capacity::Reservation,
    run_dir::RunDir,
    sandbox_dir::SandboxDir,
    start_plan::StartPlan,
};

/// The machine of a sandbox.
#[derive(Debug)]
pub(crate) struct RunningMachine {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
    /// Pages that its pager cannot serve.
    pub(crate) damage: mpsc::UnboundedReceiver<Damage>,
    pub(crate) pager: Option<Arc<StackPager>>,
    pub(crate) lineage: Lineage,
    /// Keeps shared memory in RAM for other forks of the same snapshot.
    pub(crate) _memory: Option<MemorySource>,
    pub(crate) _reservation: Reservation,
    pub(crate) _run_dir: RunDir,
}

/// The layers below a machine's memory and disks.
#[derive(Debug, Clone)]
pub(crate) struct Lineage {
    template: TemplateName,
    resources: Resources,
    /// The snapshot that the machine was loaded from, held while it runs.
    loaded_from: Option<Pin>,
    memory: Chain,
    disks: Vec<DiskManifest>,
    /// The newest snapshot of the machine, which holds the layers below its disks.
    newest: Option<Pin>,
    top_layers: TopLayers,
}

/// Whether the writable layers still extend the chains of the lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TopLayers {
    Current,
    /// A snapshot sealed them; a machine that resumes needs new ones.
    Stale,
}

// === impl RunningMachine ===

impl RunningMachine {
    /// Kills the VM and saves the pager's working set.
    pub(crate) async fn destroy(self) {
        self.machine.kill().await;
        let Some(pager) = self.pager else {
            return;
        };
        let stopped = blocking(move || {
            pager.save_working_set();
            pager.stop();
        });
        if let Err(Interrupted) = stopped.await {
            warn!("failed to stop pager in order");
        }
    }

    /// Describes the machine for a snapshot of it.
    pub(crate) fn capture_source(&self, dir: &SandboxDir) -> CaptureSource {
        let lineage = &self.lineage;
        let disk = |disk: &DiskManifest| DiskSource {
            size: disk.size,
            base: disk.base.clone(),
            chain: disk.chain.clone(),
            top: dir.top_layer_path(),
        };
        CaptureSource {
            template: lineage.template.clone(),
            resources: lineage.resources,
            parent: lineage.loaded_from.as_ref().map(|pin| pin.id().clone()),
            memory: lineage.memory.clone(),
            disks: lineage.disks.iter().map(disk).collect(),
            working_set: self
                .pager
                .as_ref()
                .map(|pager| pager.accessed_pages())
                .unwrap_or_default(),
        }
    }
}

// === impl Lineage ===

impl Lineage {
    /// Describes a machine that booted from these disks.
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
            top_layers: TopLayers::Current,
        }
    }

    /// Describes a machine made from a snapshot. A fork inherits the layers of its origin.
    pub(crate) fn loaded(pin: Pin, manifest: &Manifest, plan: StartPlan) -> Self {
        let chain = |chain: &Chain| {
            let chain = chain.owned_by(pin.id());
            if plan.is_fork() {
                chain.inherited()
            } else {
                chain
            }
        };
        let disk = |disk: &DiskManifest| DiskManifest {
            chain: chain(&disk.chain),
            ..disk.clone()
        };
        Self {
            template: manifest.template.clone(),
            resources: manifest.resources,
            memory: match plan.scope() {
                pool_api::SnapshotScope::Full => chain(&manifest.memory),
                pool_api::SnapshotScope::DiskOnly => Chain::default(),
            },
            disks: manifest.disks.iter().map(disk).collect(),
            loaded_from: Some(pin),
            newest: None,
            top_layers: TopLayers::Current,
        }
    }

    /// Moves the disks onto the layers of a new snapshot. Memory stays: it is compared with the pages that were loaded,
    /// whatever was captured since.
    pub(crate) fn advance(&mut self, committed: &Committed) {
        let id: &SnapshotId = committed.pin.id();
        for (disk, captured) in self.disks.iter_mut().zip(&committed.manifest.disks) {
            let chain = captured.chain.owned_by(id);
            if chain != disk.chain {
                self.top_layers = TopLayers::Stale;
            }
            disk.chain = chain;
        }
        self.newest = Some(committed.pin.clone());
    }

    /// Returns the sizes in bytes of the top layers to replace before the machine resumes, and marks them replaced.
    pub(crate) fn take_stale_top_layers(&mut self) -> Vec<u64> {
        match std::mem::replace(&mut self.top_layers, TopLayers::Current) {
            TopLayers::Current => Vec::new(),
            TopLayers::Stale => self.disks.iter().map(|disk| disk.size).collect(),
        }
    }

    /// Marks the top layers as replaced.
    pub(crate) fn set_top_layers_current(&mut self) {
        self.top_layers = TopLayers::Current;
    }
}
