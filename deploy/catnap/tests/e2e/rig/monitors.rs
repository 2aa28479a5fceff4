//! Monitor processes.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

/// Returns the live monitors of a work directory, whatever their parent is.
pub(crate) fn monitors_of(work: &Path) -> Vec<Pid> {
    let sockets = stream_sockets(work);
    let is_monitor = |pid: &Pid| {
        let proc = Path::new("/proc").join(pid.to_string());
        // Zombies have no program.
        let Ok(program) = fs::read_link(proc.join("exe")) else {
            return false;
        };
        program.file_name() == Some(OsStr::new("catnap-vmm"))
            && open_files(&proc).iter().any(|file| sockets.contains(file))
    };
    let mut monitors: Vec<Pid> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(is_monitor)
        .collect();
    monitors.sort();
    monitors
}

/// Returns the stream sockets of monitors in run directories below `work`, as links to them read.
fn stream_sockets(work: &Path) -> HashSet<PathBuf> {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(6);
            let (inode, path) = (fields.next()?, fields.next()?);
            Path::new(path)
                .starts_with(work)
                .then(|| PathBuf::from(format!("socket:[{inode}]")))
        })
        .collect()
}

fn open_files(proc: &Path) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(proc.join("fd")).into_iter().flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
        .collect()
}
