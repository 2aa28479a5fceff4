//! Making a machine of a snapshot.

mod fill;
mod settle;

use std::{io, path::PathBuf, sync::Arc};

use pool_api::{Epoch, Resources, SandboxSpec, SnapshotScope, Stage, Start, WakeReport};
use snapshotter::{Damage, Mode, OpenError, Opened, Pin};
use tokio::{sync::mpsc, time::Instant};
use vmm_api::{BootError, LoadError, MachineError, TopLayer};

use self::fill::{Loaded, fill};

use crate::{
    awaken::{As, AwakenError, awaken},
    capacity::NoRoom,
    home::Home,
    host::{Host, Interrupted, blocking},
    live::Live,
    shelf::{BlankError, Ready},
};

/// What is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// `Fork` or `Restore`.
    pub(crate) start: Start,
    /// What of the snapshot it is made of.
    pub(crate) from: SnapshotScope,
    pub(crate) snapshot: Pin,
    pub(crate) spec: Arc<SandboxSpec>,
    pub(crate) epoch: Epoch,
    pub(crate) resources: Resources,
    pub(crate) home: Home,
}

/// A machine that runs and knows what it is.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) live: Live,
    pub(crate) report: WakeReport,
}

/// A machine that was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("no room on this host: {0}")]
    NoRoom(#[from] NoRoom),
    #[error("make a blank")]
    Blank(#[source] BlankError),
    #[error("open snapshot {id}")]
    Open {
        id: pool_api::SnapshotId,
        #[source]
        source: OpenError,
    },
    #[error("the snapshot is of a machine with other resources")]
    Resources,
    #[error("make files of the sandbox")]
    Files(#[source] io::Error),
    #[error("load machine")]
    Load(#[source] LoadError),
    #[error("read kernel {}", path.display())]
    Kernel {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("boot machine")]
    Boot(#[source] BootError),
    #[error("let the machine run")]
    Resume(#[source] MachineError),
    #[error("awaken the guest")]
    Awaken(#[source] AwakenError),
    #[error("serve guest memory")]
    Damaged(#[source] Damage),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

type Times = Vec<(Stage, std::time::Duration)>;

/// What a machine is made in and of.
struct Parts {
    ready: Ready,
    opened: Opened,
    damage: mpsc::UnboundedReceiver<Damage>,
    top: Vec<TopLayer>,
    console: std::fs::File,
}

/// Makes a machine of a snapshot and tells its guest what it is. Dropping the future leaves nothing.
pub(crate) async fn start(host: &Host, mut plan: Plan) -> Result<Started, StartError> {
    if plan.start == Start::Restore && plan.from == SnapshotScope::DiskOnly {
        settle::settle(host, &mut plan).await;
    }
    make(host, plan).await
}

async fn make(host: &Host, plan: Plan) -> Result<Started, StartError> {
    let permit = host.capacity.admit(plan.resources.memory)?;
    let mut times = Times::new();
    let parts = prepare(host, &plan, &mut times).await?;
    let mut loaded = fill(host, &plan, parts, &mut times).await?;
    let spoken = speak(host, &plan, &mut loaded, &mut times).await;
    match spoken {
        Ok(()) => Ok(Started {
            live: loaded.live(permit),
            report: WakeReport {
                start: match plan.from {
                    SnapshotScope::Full => plan.start,
                    SnapshotScope::DiskOnly => Start::Boot,
                },
                stages: times,
            },
        }),
        Err(error) => {
            loaded.machine.kill().await;
            Err(error)
        }
    }
}

/// A blank and the snapshot, at the same time.
async fn prepare(host: &Host, plan: &Plan, times: &mut Times) -> Result<Parts, StartError> {
    let began = Instant::now();
    let blank = async {
        let ready = host
            .shelf
            .claim(&plan.resources)
            .await
            .map_err(StartError::Blank)?;
        Ok::<_, StartError>((ready, began.elapsed()))
    };
    let (report, damage) = mpsc::unbounded_channel();
    let store = Arc::clone(&host.store);
    let id = plan.snapshot.id().clone();
    let mode = match (host.config.memory, plan.start) {
        (Mode::Auto, Start::Fork) => Mode::Cow,
        (mode, _) => mode,
    };
    let (home, from) = (plan.home.clone(), plan.from);
    let open = async {
        let opened = blocking(move || {
            // Nobody hears it when the machine is gone already.
            let on_damage = move |damage| drop(report.send(damage));
            let opened = match from {
                SnapshotScope::Full => store.open_snapshot(&id, mode, on_damage),
                SnapshotScope::DiskOnly => store.open_filesystem(&id),
            };
            let opened = opened.map_err(|source| StartError::Open { id, source })?;
            let tops = opened
                .disks
                .iter()
                .map(|disk| home.new_top(disk.size))
                .collect::<io::Result<Vec<_>>>();
            let console = home.console().map_err(StartError::Files)?;
            Ok::<_, StartError>((opened, tops.map_err(StartError::Files)?, console))
        });
        Ok::<_, StartError>((opened.await??, began.elapsed()))
    };
    let ((ready, blank_time), ((opened, top, console), open_time)) = tokio::try_join!(blank, open)?;
    times.extend([(Stage::Blank, blank_time), (Stage::Open, open_time)]);
    let found = opened.manifest.resources;
    if (found.vcpus, found.memory) != (plan.resources.vcpus, plan.resources.memory) {
        return Err(StartError::Resources);
    }
    Ok(Parts {
        ready,
        opened,
        damage,
        top,
        console,
    })
}

/// Lets the machine run and tells the guest. A page that cannot be served ends it at once: nobody would ever answer.
async fn speak(
    host: &Host,
    plan: &Plan,
    loaded: &mut Loaded,
    times: &mut Times,
) -> Result<(), StartError> {
    let began = Instant::now();
    let as_what = match (plan.start, plan.from) {
        (Start::Fork | Start::Boot, _) => As::Fork(&plan.spec, plan.epoch),
        (_, SnapshotScope::Full) => As::Restore(&plan.spec, plan.epoch),
        (_, SnapshotScope::DiskOnly) => As::Boot(&plan.spec, plan.epoch),
    };
    // A guest that boots has its kernel to start first.
    let deadline = match plan.from {
        SnapshotScope::Full => host.config.awaken,
        SnapshotScope::DiskOnly => host.config.boot,
    };
    let machine = &*loaded.machine;
    let spoken = async {
        machine.resume().await.map_err(StartError::Resume)?;
        awaken(machine, as_what, deadline)
            .await
            .map_err(StartError::Awaken)
    };
    tokio::select! {
        spoken = spoken => spoken?,
        Some(damage) = loaded.damage.recv() => return Err(StartError::Damaged(damage)),
    }
    times.push((Stage::GuestInit, began.elapsed()));
    Ok(())
}
