//! Monitor processes.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use nix::unistd::Pid;

use super::WORK_DIR_VARIABLE;

/// Returns the live monitors of a work directory, whatever their parent is.
pub(crate) fn monitors_of(work: &Path) -> Vec<Pid> {
    let variable = [
        WORK_DIR_VARIABLE.as_bytes(),
        b"=",
        work.as_os_str().as_bytes(),
    ]
    .concat();
    let is_monitor = |pid: &Pid| {
        let proc = Path::new("/proc").join(pid.to_string());
        // Zombies have no program.
        let Ok(program) = fs::read_link(proc.join("exe")) else {
            return false;
        };
        let environment = fs::read(proc.join("environ")).unwrap_or_default();
        program.file_name() == Some(OsStr::new("catnap-vmm"))
            && environment
                .split(|byte| *byte == 0)
                .any(|it| it == variable)
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
