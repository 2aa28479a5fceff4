//! Monitors among the processes of this machine.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use nix::unistd::Pid;

use super::MARK;

/// The monitors that a gateway of this work directory spawned and that are alive, whoever is their parent now.
pub(crate) fn monitors_of(work: &Path) -> Vec<Pid> {
    let mark = [MARK.as_bytes(), b"=", work.as_os_str().as_bytes()].concat();
    let ours = |pid: &Pid| {
        let proc = Path::new("/proc").join(pid.to_string());
        // A process that is gone has no program, and one that is only waited for has none either.
        let Ok(program) = fs::read_link(proc.join("exe")) else {
            return false;
        };
        let environment = fs::read(proc.join("environ")).unwrap_or_default();
        program.file_name() == Some(OsStr::new("catnap-vmm"))
            && environment.split(|byte| *byte == 0).any(|one| one == mark)
    };
    let mut found: Vec<Pid> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(ours)
        .collect();
    found.sort();
    found
}
