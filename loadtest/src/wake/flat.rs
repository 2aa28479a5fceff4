//! Forks and restores of the flat guest through monitor and snapshotter, to its first exit.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use pool_api::SnapshotId;
use snapshotter::{CaptureSource, Chain, MemoryMode, Store};
use tempfile::TempDir;
use tokio::sync::watch;
use vmm_api::{Blank, BlankSpec, BootSpec, Kvm, KvmBlank, LoadReport, LoadSpec, Machine, flat};

use crate::{
    floor::{Floor, PageSource},
    histogram::Histogram,
    report::Report,
};

const MEMORY: u64 = 512 << 20;
/// Number of pages in 8 MiB.
const WORKING_SET: u32 = 2048;

/// Machines and snapshots of one measurement.
struct Benchmark {
    /// Monitors to compare, by the name that a row adds.
    hypervisors: Vec<(&'static str, Kvm)>,
    dir: TempDir,
    store: Store,
    blanks: AtomicU32,
}

/// Durations of one wake.
struct Wake {
    total: Duration,
    open: Duration,
    load: LoadReport,
    run: Duration,
}

pub(super) async fn measure(
    hypervisors: Vec<(&'static str, Kvm)>,
    count: u32,
    floor: &Floor,
    report: &mut Report,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("store"))?;
    let benchmark = Benchmark {
        hypervisors: hypervisors
            .into_iter()
            .map(|(name, kvm)| (name, kvm.with_doorbell()))
            .collect(),
        dir,
        store,
        blanks: AtomicU32::new(0),
    };
    for (pages, working_set) in [(1, "one page"), (WORKING_SET, "8 MiB working set")] {
        let snapshot = benchmark
            .snapshot(pages)
            .await
            .context("failed to create a snapshot of the flat guest")?;
        // The restore of the second row records the working set that those of the third prefetch.
        let _resident = benchmark.store.keep_resident(&snapshot)?;
        for (mode, source, name) in [
            (MemoryMode::Cow, PageSource::Cow, "fork, Cow"),
            (
                MemoryMode::Paged,
                PageSource::Faulted,
                "restore, Paged, first (records)",
            ),
            (
                MemoryMode::Paged,
                PageSource::Prefetched,
                "restore, Paged, prefetched",
            ),
        ] {
            let count = if source == PageSource::Faulted {
                1
            } else {
                count
            };
            let wakes = benchmark
                .wakes(&snapshot, mode, count)
                .await
                .with_context(|| name.to_owned())?;
            for ((monitors, _), wakes) in benchmark.hypervisors.iter().zip(wakes) {
                report_wakes(
                    report,
                    &format!("flat guest, {working_set}: {name}{monitors}"),
                    &wakes,
                    floor.wake_cost(source, pages),
                )?;
            }
        }
    }
    Ok(())
}

fn report_wakes(
    report: &mut Report,
    name: &str,
    wakes: &[Wake],
    floor: Duration,
) -> anyhow::Result<()> {
    let mut add_row = |name: &str, stage: fn(&Wake) -> Duration, floor| {
        let mut histogram = Histogram::new()?;
        wakes.iter().for_each(|wake| histogram.add(stage(wake)));
        report.add(name, &histogram, floor);
        anyhow::Ok(())
    };
    add_row(name, |wake| wake.total, Some(floor))?;
    add_row("    open snapshot", |wake| wake.open, None)?;
    add_row("    read image", |wake| wake.load.image, None)?;
    add_row("    map memory", |wake| wake.load.memory, None)?;
    add_row("    prefetch working set", |wake| wake.load.prefetch, None)?;
    add_row("    restore state", |wake| wake.load.state, None)?;
    add_row("    resume, to first exit", |wake| wake.run, None)
}

impl Benchmark {
    async fn blank(&self, kvm: &Kvm) -> anyhow::Result<KvmBlank> {
        let run_dir = self
            .dir
            .path()
            .join(self.blanks.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&run_dir)?;
        let spec = BlankSpec {
            vcpus: 1,
            memory: MEMORY,
            run_dir,
        };
        Ok(kvm.spawn(spec).await?)
    }

    fn console(&self) -> anyhow::Result<File> {
        Ok(File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("console"))?)
    }

    /// Boots the guest, runs one pass over its pages, and stores a snapshot.
    async fn snapshot(&self, pages: u32) -> anyhow::Result<SnapshotId> {
        let kernel = tempfile::tempfile()?;
        kernel.write_all_at(&flat::kernel(pages), 0)?;
        let spec = BootSpec {
            kernel,
            command_line: String::new(),
            disks: Vec::new(),
            console: self.console()?,
        };
        let (_, kvm) = self.hypervisors.first().context("no hypervisor")?;
        let blank = self.blank(kvm).await?;
        let mut doorbell = blank.doorbell();
        let machine = Box::new(blank).boot(spec).await?;
        doorbell.wait_for(Option::is_some).await?;
        machine.pause().await?;
        run_to_next_ring(&*machine, &mut doorbell).await?;
        machine.pause().await?;
        let staging = self.store.stage(pool_api::SnapshotScope::Full, MEMORY, 0)?;
        let captured = machine.capture(staging.spec()?).await?;
        machine.kill().await;
        let source = CaptureSource {
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
        let committed = staging.commit(&self.store, &captured, source)?;
        let id = committed.pin.id().clone();
        // The benchmark removes its directory as a whole and collects no snapshots before.
        std::mem::forget(committed.pin);
        Ok(id)
    }

    /// Wakes `count` machines of each hypervisor, in turns.
    async fn wakes(
        &self,
        snapshot: &SnapshotId,
        mode: MemoryMode,
        count: u32,
    ) -> anyhow::Result<Vec<Vec<Wake>>> {
        let mut blanks = Vec::new();
        for (_, kvm) in &self.hypervisors {
            blanks.push((kvm, self.blank(kvm).await?, Vec::new()));
        }
        for _ in 0..count {
            for (kvm, blank, wakes) in &mut blanks {
                // Spawned ahead, as the pool does.
                let next = self.blank(kvm).await?;
                let blank = std::mem::replace(blank, next);
                wakes.push(self.wake(blank, snapshot, mode).await?);
            }
        }
        Ok(blanks.into_iter().map(|(_, _, wakes)| wakes).collect())
    }

    async fn wake(
        &self,
        blank: KvmBlank,
        snapshot: &SnapshotId,
        mode: MemoryMode,
    ) -> anyhow::Result<Wake> {
        let console = self.console()?;
        let started = Instant::now();
        let opened = self.store.open_snapshot(snapshot, mode, |_| {})?;
        let open = started.elapsed();
        let saved = opened.machine.context("the snapshot has no memory")?;
        let spec = LoadSpec {
            image: saved.image,
            memory: saved.memory,
            disks: Vec::new(),
            console,
        };
        let mut doorbell = blank.doorbell();
        let machine = Box::new(blank).load(spec).await?;
        let running = Instant::now();
        run_to_next_ring(&*machine, &mut doorbell).await?;
        let (run, total) = (running.elapsed(), started.elapsed());
        let load = machine
            .load_report()
            .context("the loaded machine has no load report")?;
        if let Some(pager) = &saved.pager {
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

/// Resumes a paused guest and waits for its next ring.
async fn run_to_next_ring(
    machine: &dyn Machine,
    doorbell: &mut watch::Receiver<Option<u32>>,
) -> anyhow::Result<()> {
    doorbell.mark_unchanged();
    machine.resume().await?;
    Ok(doorbell.changed().await?)
}
