//! The faults of the campaign.

use std::{collections::BTreeMap, fs, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::{process::Command, time::sleep};

use super::disk::LoopDisk;
use crate::gateway::{Gateway, Launch};

/// Calls on files that fail with EIO.
const CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2,linkat,pwrite64,openat,ftruncate";

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillGateway,
    KillMonitor,
    FillDisk,
    /// No further file descriptor can be opened.
    ExhaustDescriptors,
    FailCalls,
}

const FAULTS: [Fault; 5] = [
    Fault::KillGateway,
    Fault::KillMonitor,
    Fault::FillDisk,
    Fault::ExhaustDescriptors,
    Fault::FailCalls,
];

/// Injects faults into a gateway, which it restarts when it has ended.
pub(super) struct Faults {
    launch: Launch,
    gateway: Gateway,
    disk: Arc<LoopDisk>,
    random: StdRng,
    counts: BTreeMap<Fault, u64>,
}

impl Faults {
    pub(super) fn new(
        launch: Launch,
        gateway: Gateway,
        disk: Arc<LoopDisk>,
        random: StdRng,
    ) -> Self {
        Self {
            launch,
            gateway,
            disk,
            random,
            counts: BTreeMap::new(),
        }
    }

    /// Waits for a random time and injects one fault.
    pub(super) async fn inject(&mut self) -> anyhow::Result<()> {
        sleep(Duration::from_millis(self.random.random_range(500..5000))).await;
        let Some(fault) = FAULTS.choose(&mut self.random).copied() else {
            return Ok(());
        };
        *self.counts.entry(fault).or_default() += 1;
        let lasts = Duration::from_millis(self.random.random_range(500..4000));
        match fault {
            Fault::KillGateway => self.restart().await?,
            Fault::KillMonitor => {
                let monitors = children(self.gateway.pid()?)?;
                if let Some(monitor) = monitors.choose(&mut self.random) {
                    // It may have ended.
                    let _gone = kill(*monitor, Signal::SIGKILL);
                }
            }
            Fault::FillDisk => {
                let _full = self.disk.fill()?;
                sleep(lasts).await;
            }
            Fault::ExhaustDescriptors => self.exhaust_descriptors(lasts).await?,
            Fault::FailCalls => self.fail_calls(lasts).await?,
        }
        // A gateway that a fault ended is started again, as a supervisor would.
        if self.gateway.pid().is_err() || !is_alive(self.gateway.pid()?) {
            self.restart().await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        if let Ok(pid) = self.gateway.pid() {
            // It may have ended.
            let _gone = kill(pid, Signal::SIGKILL);
        }
        self.gateway.ended().await?;
        self.gateway = self.launch.start().await.context("failed to restart")?;
        Ok(())
    }

    /// Lowers the limit of the gateway to the descriptors that it has.
    async fn exhaust_descriptors(&self, lasts: Duration) -> anyhow::Result<()> {
        let pid = self.gateway.pid()?;
        let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let own = getrlimit(Resource::Nofile);
        let process = rustix::process::Pid::from_raw(pid.as_raw());
        let before = prlimit(
            process,
            Resource::Nofile,
            Rlimit {
                current: Some(u64::try_from(open)?),
                maximum: own.maximum,
            },
        )?;
        sleep(lasts).await;
        if is_alive(pid) {
            prlimit(process, Resource::Nofile, before)?;
        }
        Ok(())
    }

    /// Makes some of the gateway's calls on files fail.
    async fn fail_calls(&mut self, lasts: Duration) -> anyhow::Result<()> {
        let first: u32 = self.random.random_range(1..20);
        let every: u32 = self.random.random_range(3..40);
        let mut tracer = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("trace={CALLS}"))
            .arg("-e")
            .arg(format!("inject={CALLS}:error=EIO:when={first}+{every}"))
            .args(["-p", &self.gateway.pid()?.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start strace")?;
        sleep(lasts).await;
        if let Some(pid) = tracer.id() {
            // SIGTERM detaches it from the gateway.
            let _gone = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM);
        }
        tracer.wait().await?;
        Ok(())
    }

    /// Ends the faults; returns their counts, and the gateway and disk.
    pub(super) fn finish(self) -> (String, Gateway, Arc<LoopDisk>) {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(fault, count)| format!("{fault:?} {count}"))
            .collect();
        let counts = format!("faults: {}", counts.join(", "));
        (counts, self.gateway, self.disk)
    }
}

fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): the state follows the name in parentheses.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Lists the children of a process, in any of its threads.
fn children(pid: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("children");
        // The thread may have ended.
        let text = fs::read_to_string(path).unwrap_or_default();
        for child in text.split_whitespace() {
            found.push(Pid::from_raw(child.parse()?));
        }
    }
    Ok(found)
}
