//! Filling a blank: from a machine image, or by booting a kernel on the snapshot's disks.

use std::{fs::File, sync::Arc};

use pool_api::Stage;
use snapshotter::{Damage, OpenDisk, OpenMachine, StackPager};
use tokio::{sync::mpsc, time::Instant};
use vmm_api::{Blank, BootSpec, Disk, LoadSpec, Machine, MemorySource};

use super::{StageTimes, StartError, StartParts};
use crate::{
    blank_pool::ReadyBlank,
    capacity::Reservation,
    fsfreeze::Frozen,
    host::Host,
    run_dir::RunDir,
    running::{Lineage, RunningMachine},
    start_plan::StartPlan,
    top_layer::TopFile,
};

/// A machine whose guest has no identity yet.
pub(super) struct LoadedMachine {
    pub(super) machine: Arc<dyn Machine>,
    pub(super) damage: mpsc::UnboundedReceiver<Damage>,
    run_dir: RunDir,
    lineage: Lineage,
    memory: Option<MemorySource>,
    pager: Option<Arc<StackPager>>,
}

/// Makes a machine from a blank. A loaded machine is paused, a booted one runs.
pub(super) async fn load_machine(
    host: &Host,
    plan: StartPlan,
    parts: StartParts,
    times: &mut StageTimes,
) -> Result<LoadedMachine, StartError> {
    let StartParts {
        ready: ReadyBlank { blank, run_dir },
        snapshot,
        mut damage,
        top_files,
        console,
    } = parts;
    let disk = |(disk, top): (OpenDisk, &TopFile)| {
        Ok(Disk {
            size: disk.size,
            base: disk.base,
            layers: disk.layers,
            top: top.layer().map_err(StartError::Files)?,
        })
    };
    let disks: Vec<Disk> = snapshot
        .disks
        .into_iter()
        .zip(&top_files)
        .map(disk)
        .collect::<Result<_, StartError>>()?;
    let lineage = Lineage::loaded(snapshot.pin, &snapshot.manifest, plan, top_files);
    let image = snapshot.machine;
    let memory = image.as_ref().map(|image| image.memory.clone());
    let pager = image.as_ref().and_then(|image| image.pager.clone());
    let machine = match image {
        Some(image) => load(blank, image, disks, console, &mut damage, times).await?,
        None => boot(host, blank, disks, console, times).await?,
    };
    Ok(LoadedMachine {
        machine,
        run_dir,
        lineage,
        memory,
        pager,
        damage,
    })
}

async fn load(
    blank: Box<dyn Blank>,
    image: OpenMachine,
    disks: Vec<Disk>,
    console: File,
    damage: &mut mpsc::UnboundedReceiver<Damage>,
    times: &mut StageTimes,
) -> Result<Arc<dyn Machine>, StartError> {
    let began = Instant::now();
    let spec = LoadSpec {
        image: image.image,
        memory: image.memory,
        disks,
        console,
    };
    // The monitor reads guest memory as it loads, and would wait without end for a page that cannot be served. It ends
    // with the future.
    let machine: Arc<dyn Machine> = tokio::select! {
        loaded = blank.load(spec) => loaded.map_err(StartError::Load)?.into(),
        Some(damage) = damage.recv() => return Err(StartError::Damaged(damage)),
    };
    let prefetch = machine
        .load_report()
        .map(|report| report.prefetch)
        .unwrap_or_default();
    times.push((Stage::Load, began.elapsed().saturating_sub(prefetch)));
    if image.pager.is_some() {
        times.push((Stage::Prefetch, prefetch));
    }
    Ok(machine)
}

async fn boot(
    host: &Host,
    blank: Box<dyn Blank>,
    disks: Vec<Disk>,
    console: File,
    times: &mut StageTimes,
) -> Result<Arc<dyn Machine>, StartError> {
    let began = Instant::now();
    let path = &host.config.artefacts.kernel;
    let kernel = File::open(path).map_err(|source| StartError::Kernel {
        path: path.clone(),
        source,
    })?;
    let spec = BootSpec {
        kernel,
        command_line: host.config.artefacts.command_line.clone(),
        disks,
        console,
    };
    let machine = blank.boot(spec).await.map_err(StartError::Boot)?.into();
    times.push((Stage::Load, began.elapsed()));
    Ok(machine)
}

impl LoadedMachine {
    pub(super) fn into_running(self, reservation: Reservation) -> RunningMachine {
        RunningMachine {
            exit: self.machine.exit(),
            machine: self.machine,
            damage: self.damage,
            pager: self.pager,
            lineage: self.lineage,
            frozen: Frozen::No,
            _memory: self.memory,
            reservation,
            _run_dir: self.run_dir,
        }
    }
}
