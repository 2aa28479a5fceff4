//! The flat guest: forked and restored through the monitor and the snapshotter, to its first exit.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use pool_api::SnapshotId;
use snapshotter::{CaptureSource, Chain, MemoryMode, Store};
use tempfile::TempDir;
use vmm_api::{BlankSpec, BootSpec, Kvm, LoadReport, LoadSpec, Machine, Monitor, Process, flat};

use crate::{
    floor::{Arrival, Floor},
    record::Record,
    report::Report,
};

const MEMORY: u64 = 512 << 20;
/// Pages of 8 MiB.
const WORKING_SET: u32 = 2048;

/// Where machines and snapshots live while measuring.
struct Bench {
    kvm: Kvm,
    dir: TempDir,
    store: Store,
    blanks: AtomicU32,
}

/// One wake.
struct Wake {
    total: Duration,
    open: Duration,
    load: LoadReport,
    run: Duration,
}

pub(super) async fn measure(
    vmm: PathBuf,
    count: u32,
    floor: &Floor,
    report: &mut Report,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("store"))?;
    let bench = Bench {
        kvm: Kvm::new(vmm)?,
        dir,
        store,
        blanks: AtomicU32::new(0),
    };
    for (pages, what) in [(1, "one page"), (WORKING_SET, "8 MiB working set")] {
        let snapshot = bench
            .snapshot(pages)
            .await
            .context("make a snapshot of the flat guest")?;
        // The second row's first restore records what the third installs ahead.
        let _resident = bench.store.keep_resident(&snapshot)?;
        for (mode, arrival, name) in [
            (MemoryMode::Cow, Arrival::Cow, "fork, Cow"),
            (
                MemoryMode::Paged,
                Arrival::Demanded,
                "restore, Paged, first (records)",
            ),
            (
                MemoryMode::Paged,
                Arrival::Installed,
                "restore, Paged, prefetched",
            ),
        ] {
            let count = if arrival == Arrival::Demanded {
                1
            } else {
                count
            };
            let wakes = bench
                .wakes(&snapshot, mode, count)
                .await
                .with_context(|| name.to_owned())?;
            add(
                report,
                &format!("flat guest, {what}: {name}"),
                &wakes,
                floor.of_wake(arrival, pages),
            )?;
        }
    }
    Ok(())
}

fn add(report: &mut Report, name: &str, wakes: &[Wake], floor: Duration) -> anyhow::Result<()> {
    let mut part = |name: &str, of: fn(&Wake) -> Duration, floor| {
        let mut record = Record::new()?;
        wakes.iter().for_each(|wake| record.add(of(wake)));
        report.add(name, &record, floor);
        anyhow::Ok(())
    };
    part(name, |wake| wake.total, Some(floor))?;
    part("    snapshot opened", |wake| wake.open, None)?;
    part("    image read", |wake| wake.load.image, None)?;
    part("    memory mapped", |wake| wake.load.memory, None)?;
    part("    working set installed", |wake| wake.load.prefetch, None)?;
    part("    state set", |wake| wake.load.state, None)?;
    part("    resumed, to first exit", |wake| wake.run, None)
}

impl Bench {
    async fn blank(&self) -> anyhow::Result<Monitor> {
        let run_dir = self
            .dir
            .path()
            .join(self.blanks.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&run_dir)?;
        Ok(self
            .kvm
            .monitor(BlankSpec {
                vcpus: 1,
                memory: MEMORY,
                run_dir,
            })
            .await?)
    }

    fn console(&self) -> anyhow::Result<File> {
        Ok(File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("console"))?)
    }

    /// Boots the guest, lets it touch its pages once, and keeps it.
    async fn snapshot(&self, pages: u32) -> anyhow::Result<SnapshotId> {
        let kernel = tempfile::tempfile()?;
        kernel.write_all_at(&flat::kernel(pages), 0)?;
        let spec = BootSpec {
            kernel,
            command_line: String::new(),
            disks: Vec::new(),
            console: self.console()?,
        };
        let machine = self.blank().await?.boot(spec).await?;
        machine.doorbell().wait_for(Option::is_some).await?;
        machine.pause().await?;
        ring(&machine).await?;
        machine.pause().await?;
        let staging = self.store.stage(pool_api::SnapshotScope::Full, MEMORY, 0)?;
        let captured = machine.capture(staging.spec()?).await?;
        machine.kill().await;
        let cut = CaptureSource {
            template: "flat".parse()?,
            resources: pool_api::Resources {
                vcpus: 1,
                memory: MEMORY,
                disk: 0,
            },
            parent: None,
            memory: Chain {
                inherited: 0,
                layers: Vec::new(),
            },
            disks: Vec::new(),
            working_set: Vec::new(),
        };
        let committed = staging.commit(&self.store, &captured, cut)?;
        let id = committed.pin.id().clone();
        // The benchmark's directory goes as a whole: nothing is collected before.
        std::mem::forget(committed.pin);
        Ok(id)
    }

    async fn wakes(
        &self,
        snapshot: &SnapshotId,
        mode: MemoryMode,
        count: u32,
    ) -> anyhow::Result<Vec<Wake>> {
        let mut wakes = Vec::new();
        let mut blank = self.blank().await?;
        for _ in 0..count {
            // Made ahead, as the shelf does.
            let next = self.blank().await?;
            wakes.push(self.wake(blank, snapshot, mode).await?);
            blank = next;
        }
        Ok(wakes)
    }

    async fn wake(
        &self,
        blank: Monitor,
        snapshot: &SnapshotId,
        mode: MemoryMode,
    ) -> anyhow::Result<Wake> {
        let console = self.console()?;
        let begun = Instant::now();
        let opened = self.store.open_snapshot(snapshot, mode, |_| {})?;
        let open = begun.elapsed();
        let kept = opened.machine.context("the snapshot keeps no memory")?;
        let spec = LoadSpec {
            image: kept.image,
            memory: kept.memory,
            disks: Vec::new(),
            console,
        };
        let machine = blank.load(spec).await?;
        let running = Instant::now();
        ring(&machine).await?;
        let (run, total) = (running.elapsed(), begun.elapsed());
        let load = machine
            .load_report()
            .context("a loaded machine reports what it cost")?;
        if let Some(pager) = &kept.pager {
            pager.save_working_set();
        }
        machine.kill().await;
        Ok(Wake {
            total,
            open,
            load,
            run,
        })
    }
}

/// Lets a paused guest go on to its next exit.
async fn ring(machine: &Process) -> anyhow::Result<()> {
    let mut doorbell = machine.doorbell();
    doorbell.mark_unchanged();
    machine.resume().await?;
    Ok(doorbell.changed().await?)
}
