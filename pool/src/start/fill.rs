//! Putting a guest into a blank: out of its snapshot, or from the kernel on its disks.

use std::{fs::File, sync::Arc};

use pool_api::{Stage, Start};
use snapshotter::{Damage, OpenMachine, StackPager};
use tokio::{sync::mpsc, time::Instant};
use vmm_api::{Blank, BootSpec, Disk, LoadSpec, Machine, MemorySource};

use super::{Parts, Plan, StartError, Times};
use crate::{
    capacity::Permit,
    host::Host,
    live::{Lineage, Live},
    run_dir::RunDir,
    shelf::Ready,
};

/// A machine and what it was made of.
pub(super) struct Loaded {
    pub(super) machine: Arc<dyn Machine>,
    pub(super) damage: mpsc::UnboundedReceiver<Damage>,
    run_dir: RunDir,
    lineage: Lineage,
    memory: Option<MemorySource>,
    pager: Option<Arc<StackPager>>,
}

/// Makes a machine of a blank. One that is loaded stands still, one that boots runs.
pub(super) async fn fill(
    host: &Host,
    plan: &Plan,
    parts: Parts,
    times: &mut Times,
) -> Result<Loaded, StartError> {
    let Parts {
        ready: Ready { blank, run_dir },
        opened,
        mut damage,
        top,
        console,
    } = parts;
    let forked = plan.start == Start::Fork;
    let lineage = Lineage::loaded(opened.pin, &opened.manifest, plan.from, forked);
    let disk = |(disk, top): (snapshotter::OpenDisk, vmm_api::TopLayer)| Disk {
        size: disk.size,
        base: disk.base,
        layers: disk.layers,
        top,
    };
    let disks: Vec<Disk> = opened.disks.into_iter().zip(top).map(disk).collect();
    let memory = opened.machine.as_ref().map(|kept| kept.memory.clone());
    let pager = opened.machine.as_ref().and_then(|kept| kept.pager.clone());
    let machine = match opened.machine {
        Some(kept) => load(blank, kept, disks, console, &mut damage, times).await?,
        None => boot(host, blank, disks, console, times).await?,
    };
    Ok(Loaded {
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
    kept: OpenMachine,
    disks: Vec<Disk>,
    console: File,
    damage: &mut mpsc::UnboundedReceiver<Damage>,
    times: &mut Times,
) -> Result<Arc<dyn Machine>, StartError> {
    let began = Instant::now();
    let spec = LoadSpec {
        image: kept.image,
        memory: kept.memory,
        disks,
        console,
    };
    // The monitor reads guest memory as it loads. A page that cannot be served would keep it waiting for ever; it ends
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
    if kept.pager.is_some() {
        times.push((Stage::Prefetch, prefetch));
    }
    Ok(machine)
}

async fn boot(
    host: &Host,
    blank: Box<dyn Blank>,
    disks: Vec<Disk>,
    console: File,
    times: &mut Times,
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

impl Loaded {
    pub(super) fn live(self, permit: Permit) -> Live {
        Live {
            exit: self.machine.exit(),
            machine: self.machine,
            damage: self.damage,
            pager: self.pager,
            lineage: self.lineage,
            _memory: self.memory,
            _permit: permit,
            _run_dir: self.run_dir,
        }
    }
}
