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
    fsfreeze::Frozen,
    run_dir::RunDir,
    start_plan::StartPlan,
    top_layer::TopFile,
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
    /// Whether a failed snapshot or thaw left its filesystem frozen.
    pub(crate) frozen: Frozen,
    /// Keeps shared memory in RAM for other forks of the same snapshot.
    pub(crate) _memory: Option<MemorySource>,
    pub(crate) reservation: Reservation,
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

/// The writable layers of a machine's disks.
#[derive(Debug, Clone)]
struct TopLayers {
    files: Arc<Vec<TopFile>>,
    /// A snapshot has taken them over; a machine that resumes needs new ones.
    sealed: bool,
    /// For each disk whether the snapshot has other layers than the machine with these: older ones were folded.
    folded: Vec<bool>,
}

/// The layers that a disk of a stopped machine needs before it resumes.
#[derive(Debug)]
pub(crate) struct MissingLayers {
    /// The size of the disk in bytes.
    pub(crate) size: u64,
    /// The snapshot and its disk whose layers replace those of the machine.
    pub(crate) folded: Option<(Pin, DiskManifest)>,
}

// === impl RunningMachine ===

impl RunningMachine {
    /// Kills the VM and saves the pager's working set.
    pub(crate) async fn destroy(self) {
        self.machine.kill().await;
        let (pager, lineage) = (self.pager, self.lineage);
        let stopped = blocking(move || {
            if let Some(pager) = pager {
                pager.save_working_set();
                pager.stop();
            }
            // Removes the top layers.
            drop(lineage);
        });
        if let Err(Interrupted) = stopped.await {
            warn!("failed to release machine in order");
        }
    }

    /// Describes the machine for a snapshot of it.
    pub(crate) fn capture_source(&self) -> CaptureSource {
        let lineage = &self.lineage;
        let disk = |(disk, top): (&DiskManifest, &TopFile)| DiskSource {
            size: disk.size,
            base: disk.base.clone(),
            chain: disk.chain.clone(),
            top: top.file(),
        };
        CaptureSource {
            template: lineage.template.clone(),
            resources: lineage.resources,
            parent: lineage.loaded_from.as_ref().map(|pin| pin.id().clone()),
            memory: lineage.memory.clone(),
            disks: lineage
                .disks
                .iter()
                .zip(&*lineage.top_layers.files)
                .map(disk)
                .collect(),
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
        top_files: Vec<TopFile>,
    ) -> Self {
        Self {
            template,
            resources,
            loaded_from: None,
            memory: Chain::default(),
            disks,
            newest: None,
            top_layers: TopLayers::new(top_files),
        }
    }

    /// Describes a machine made from a snapshot. A fork inherits the layers of its origin.
    pub(crate) fn loaded(
        pin: Pin,
        manifest: &Manifest,
        plan: StartPlan,
        top_files: Vec<TopFile>,
    ) -> Self {
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
            top_layers: TopLayers::new(top_files),
        }
    }

    /// Moves the disks onto the layers of a new snapshot. Memory stays: it is compared with the pages that were loaded,
    /// whatever was captured since.
    pub(crate) fn advance(&mut self, committed: &Committed) {
        let id: &SnapshotId = committed.pin.id();
        let disks = self.disks.iter_mut().zip(&committed.manifest.disks);
        for ((disk, captured), folded) in disks.zip(&mut self.top_layers.folded) {
            let chain = captured.chain.owned_by(id);
            if chain != disk.chain {
                self.top_layers.sealed = true;
            }
            *folded |= chain.layers.len() != disk.chain.layers.len() + 1;
            disk.chain = chain;
        }
        self.newest = Some(committed.pin.clone());
    }

    /// Returns the layers that the disks need before the machine resumes; empty when they need none.
    pub(crate) fn missing_layers(&self) -> Vec<MissingLayers> {
        if !self.top_layers.sealed {
            return Vec::new();
        }
        let disks = self.disks.iter().zip(&self.top_layers.folded);
        let missing = |(disk, folded): (&DiskManifest, &bool)| MissingLayers {
            size: disk.size,
            folded: self
                .newest
                .clone()
                .filter(|_| *folded)
                .map(|pin| (pin, disk.clone())),
        };
        disks.map(missing).collect()
    }

    /// Replaces sealed top layers; no files mean that none were created.
    pub(crate) fn replace_top_layers(&mut self, files: Vec<TopFile>) {
        if !files.is_empty() {
            self.top_layers = TopLayers::new(files);
        }
    }
}

impl TopLayers {
    fn new(files: Vec<TopFile>) -> Self {
        Self {
            folded: vec![false; files.len()],
            files: Arc::new(files),
            sealed: false,
        }
    }
}
