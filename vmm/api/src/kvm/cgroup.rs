//! Control groups of monitors: one a monitor in each hierarchy, below one of this process.
//!
//! Version 2 has one hierarchy, version 1 one for each controller, and a host may have both. The groups of this process
//! are named after its PID, so that groups of a process that no longer exists are recognised and removed.

mod hierarchy;

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use error_chain::chain;
use tracing::{debug, warn};

use self::hierarchy::Hierarchy;

/// Prefix of the group of a gateway; its PID and a number follow.
const PREFIX: &str = "catnap-";
/// Memory of a monitor itself, its page tables and the page cache of its disks.
const MONITOR_MEMORY: u64 = 128 << 20;
/// The period of the processor limit, in microseconds.
const PERIOD: u64 = 100_000;

/// Limits of one monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    memory: u64,
    /// Processor time in a period, in microseconds.
    quota: u64,
    /// Threads.
    threads: u64,
}

/// The group of this process in each hierarchy.
#[derive(Debug)]
pub(super) struct Cgroups {
    groups: Vec<(Hierarchy, PathBuf)>,
    next: AtomicU64,
}

/// The groups of one monitor. Dropping it removes them, which needs the end of the process.
#[derive(Debug)]
pub(super) struct Cgroup {
    dirs: Vec<PathBuf>,
}

impl Limits {
    pub(super) fn of(vcpus: u8, memory: u64) -> Self {
        let threads = u64::from(vcpus) + 1;
        // On its first run a VM gets a thread of KVM's, without which the run fails (Linux 6.13 and later).
        let kvm_threads = 1;
        Self {
            // KVM's tables for the guest take up to a sixteenth of its memory.
            memory: memory + memory / 16 + MONITOR_MEMORY,
            quota: threads * PERIOD,
            threads: threads + kvm_threads,
        }
    }
}

impl Cgroups {
    /// Creates the groups. A host without usable control groups has none, which is logged.
    pub(super) fn open() -> Self {
        let mut groups = Vec::new();
        for hierarchy in hierarchy::find() {
            remove_leftovers(hierarchy.dir());
            match create_parent(&hierarchy) {
                Ok(dir) => groups.push((hierarchy, dir)),
                Err(error) => {
                    let path = hierarchy.dir().display();
                    debug!(%path, error = %chain(&error), "failed to create control group");
                }
            }
        }
        let limited = |controller: &str| groups.iter().any(|(group, _)| group.controls(controller));
        for controller in ["memory", "cpu", "pids"] {
            if !limited(controller) {
                warn!(
                    controller,
                    "monitors have no control group for this controller: run catnap in a group that delegates it \
                     (systemd: Delegate=yes)"
                );
            }
        }
        Self {
            groups,
            next: AtomicU64::new(0),
        }
    }

    /// Creates the groups of a monitor.
    pub(super) fn create(&self, limits: Limits) -> io::Result<Cgroup> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut cgroup = Cgroup { dirs: Vec::new() };
        for (hierarchy, parent) in &self.groups {
            let dir = parent.join(number.to_string());
            fs::create_dir(&dir)?;
            cgroup.dirs.push(dir.clone());
            hierarchy.set_limits(&dir, limits)?;
        }
        Ok(cgroup)
    }
}

impl Cgroup {
    /// Opens the file of each group through which a process enters it.
    pub(super) fn open_procs(&self) -> io::Result<Vec<File>> {
        let open = |dir: &PathBuf| {
            OpenOptions::new()
                .write(true)
                .open(dir.join("cgroup.procs"))
        };
        self.dirs.iter().map(open).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.dirs.iter().for_each(|dir| remove(dir));
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for (hierarchy, dir) in &self.groups {
            remove(dir);
            hierarchy.leave();
        }
    }
}

/// Creates a group of this process below its own. A process has several if it has several hypervisors.
fn create_parent(hierarchy: &Hierarchy) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = hierarchy.dir().join(name);
        match hierarchy.create_parent(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            result => return result.map(|()| dir),
        }
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir(dir) {
        debug!(path = %dir.display(), error = %chain(&error), "failed to remove control group");
    }
}

/// Removes the groups of gateways that no longer exist. Groups that still have processes stay.
fn remove_leftovers(dir: &Path) {
    for (name, group) in subdirectories(dir) {
        let pid = name.strip_prefix(PREFIX).and_then(|name| {
            let (pid, _) = name.split_once('-')?;
            pid.parse::<u32>().ok()
        });
        let Some(pid) = pid else {
            continue;
        };
        if Path::new("/proc").join(pid.to_string()).exists() {
            continue;
        }
        for (_, monitor) in subdirectories(&group) {
            remove(&monitor);
        }
        remove(&group);
    }
}

fn subdirectories(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .collect()
}
