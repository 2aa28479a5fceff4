//! Making a machine from a snapshot.

mod flush;
mod load;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use pool_api::{
    Epoch, FailedPart, Resources, SandboxSpec, SnapshotId, SnapshotScope, Stage, WakeReport,
};
use snapshotter::{Damage, OpenError, OpenSnapshot, Pin};
use tokio::{sync::mpsc, time::Instant};
use vmm_api::{BootError, LoadError, MachineError};

use self::load::{LoadedMachine, load_machine};
use crate::{
    blank_pool::{BlankError, ReadyBlank},
    blocking::{Interrupted, blocking},
    capacity::{Demand, NoRoom},
    eviction::reserve_or_evict,
    guest_init::{GuestInitError, Identity, init_guest},
    host::Host,
    running::RunningMachine,
    sandbox_dir::SandboxDir,
    start_permits::StartPermit,
    start_plan::StartPlan,
    top_layer::TopFile,
};

/// The inputs of a start.
#[derive(Debug, Clone)]
pub(crate) struct StartInputs {
    pub(crate) plan: StartPlan,
    pub(crate) snapshot: Pin,
    pub(crate) spec: Arc<SandboxSpec>,
    pub(crate) epoch: Epoch,
    pub(crate) resources: Resources,
    pub(crate) dir: SandboxDir,
    /// Bytes of memory that the sandbox has kept while it was paused.
    pub(crate) kept: u64,
}

/// A machine that runs and has its identity.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) machine: RunningMachine,
    pub(crate) report: WakeReport,
    pub(crate) permit: StartPermit,
    /// The time of the guest init.
    pub(crate) guest_init: Duration,
}

/// Failure of [`start`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("failed to get a blank")]
    Blank(#[source] BlankError),
    #[error("failed to open snapshot {id}")]
    Open {
        id: SnapshotId,
        #[source]
        source: OpenError,
    },
    #[error("the snapshot is of a machine with other resources")]
    Resources,
    #[error("failed to create files of the sandbox")]
    Files(#[source] io::Error),
    #[error("failed to load the machine")]
    Load(#[source] LoadError),
    #[error("failed to read kernel {}", path.display())]
    Kernel {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to boot the machine")]
    Boot(#[source] BootError),
    #[error("failed to run the machine")]
    Run(#[source] MachineError),
    #[error("failed to initialize the guest")]
    GuestInit(#[source] GuestInitError),
    #[error("failed to serve guest memory")]
    Damaged(#[source] Damage),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl StartError {
    /// Returns the part that failed.
    pub(crate) fn failed_part(&self) -> FailedPart {
        match self {
            Self::Open { source, .. } if source.is_damage() => FailedPart::Snapshot,
            Self::Damaged(_) => FailedPart::Snapshot,
            Self::GuestInit(_) => FailedPart::Guest,
            _ => FailedPart::Host,
        }
    }
}

type StageTimes = Vec<(Stage, Duration)>;

/// The parts that a machine is assembled from.
struct StartParts {
    ready: ReadyBlank,
    snapshot: OpenSnapshot,
    damage: mpsc::UnboundedReceiver<Damage>,
    top_files: Vec<TopFile>,
    console: std::fs::File,
}

/// Makes a machine and initializes its guest. A dropped future leaves nothing behind.
pub(crate) async fn start(host: &Host, mut inputs: StartInputs) -> Result<Started, StartError> {
    if let StartPlan::Boot {
        snapshot_scope: SnapshotScope::Full,
    } = inputs.plan
    {
        flush::flush_before_boot(host, &mut inputs).await;
    }
    make_machine(host, inputs).await
}

async fn make_machine(host: &Host, inputs: StartInputs) -> Result<Started, StartError> {
    let queued = Instant::now();
    let demand = Demand {
        memory: inputs.resources.memory.saturating_sub(inputs.kept),
        kept: inputs.kept,
        evictable: inputs.spec.idle.is_some(),
    };
    let limit = host.config.room_timeout;
    let reservation = reserve_or_evict(&host.capacity, &host.evictions, demand, limit).await?;
    let mut permit = host.start_permits.acquire().await;
    let mut times = StageTimes::from([(Stage::Queue, queued.elapsed())]);
    let parts = gather_parts(host, &inputs, &mut times).await?;
    let mut loaded = load_machine(host, inputs.plan, parts, &mut times).await?;
    let started = {
        let mut running = std::pin::pin!(run(host, &inputs, &mut loaded, &mut times));
        tokio::select! {
            started = &mut running => started,
            () = permit.become_slow() => running.await,
        }
    };
    match started {
        Ok(guest_init) => Ok(Started {
            machine: loaded.into_running(reservation),
            permit,
            guest_init,
            report: WakeReport {
                start: inputs.plan.start(),
                stages: times,
            },
        }),
        Err(error) => {
            loaded.machine.kill().await;
            Err(error)
        }
    }
}

/// Gets a blank and opens the snapshot, concurrently.
async fn gather_parts(
    host: &Host,
    inputs: &StartInputs,
    times: &mut StageTimes,
) -> Result<StartParts, StartError> {
    let began = Instant::now();
    let blank = async {
        let ready = host.blanks.take(&inputs.resources).await;
        Ok::<_, StartError>((ready.map_err(StartError::Blank)?, began.elapsed()))
    };
    let (report, damage) = mpsc::unbounded_channel();
    let (store, id) = (Arc::clone(&host.store), inputs.snapshot.id().clone());
    let mode = inputs.plan.memory_mode(host.config.memory);
    let (dir, scope) = (inputs.dir.clone(), inputs.plan.scope());
    let open = async {
        let opened = blocking(move || {
            // The receiver is dropped with its machine.
            let on_damage = move |damage| drop(report.send(damage));
            let snapshot = match scope {
                SnapshotScope::Full => store.open_snapshot(&id, mode, on_damage),
                SnapshotScope::DiskOnly => store.open_disk_only(&id),
            };
            let snapshot = snapshot.map_err(|source| StartError::Open { id, source })?;
            let top_files = snapshot
                .disks
                .iter()
                .map(|disk| TopFile::create(dir.path(), disk.size))
                .collect::<io::Result<Vec<_>>>();
            let console = dir.console().map_err(StartError::Files)?;
            Ok::<_, StartError>((snapshot, top_files.map_err(StartError::Files)?, console))
        });
        Ok::<_, StartError>((opened.await??, began.elapsed()))
    };
    let ((ready, blank_time), ((snapshot, top_files, console), open_time)) =
        tokio::try_join!(blank, open)?;
    times.extend([(Stage::Blank, blank_time), (Stage::Open, open_time)]);
    let found = snapshot.manifest.resources;
    if (found.vcpus, found.memory) != (inputs.resources.vcpus, inputs.resources.memory) {
        return Err(StartError::Resources);
    }
    Ok(StartParts {
        ready,
        snapshot,
        damage,
        top_files,
        console,
    })
}

/// Runs the machine and initializes its guest; returns the time that it took. A page that cannot be served ends the wait:
/// the guest would never answer.
async fn run(
    host: &Host,
    inputs: &StartInputs,
    loaded: &mut LoadedMachine,
    times: &mut StageTimes,
) -> Result<Duration, StartError> {
    let began = Instant::now();
    let identity = match inputs.plan {
        StartPlan::Fork { .. } => Identity::Fork,
        StartPlan::Restore => Identity::Restore,
        StartPlan::Boot { .. } => Identity::Boot,
    };
    let deadline = match inputs.plan.scope() {
        SnapshotScope::Full => host.config.guest_init_timeout,
        SnapshotScope::DiskOnly => host.config.boot_timeout,
    };
    let machine = &*loaded.machine;
    let init = async {
        machine.resume().await.map_err(StartError::Run)?;
        init_guest(machine, identity, &inputs.spec, inputs.epoch, deadline)
            .await
            .map_err(StartError::GuestInit)
    };
    tokio::select! {
        result = init => result?,
        Some(damage) = loaded.damage.recv() => return Err(StartError::Damaged(damage)),
    }
    let guest_init = began.elapsed();
    times.push((Stage::GuestInit, guest_init));
    Ok(guest_init)
}
