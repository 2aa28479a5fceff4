//! The run directories of monitors, each with a pidfile.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};
use tracing::{info, warn};

const PIDFILE: &str = "monitor.pid";

/// A monitor's run directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDir(PathBuf);

/// The parent of the run directories.
#[derive(Debug)]
pub(crate) struct RunDirs {
    root: PathBuf,
    next: AtomicU64,
}

/// A process. Start time and executable distinguish it from a later one with the same pid.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    started: String,
    executable: PathBuf,
}

// === impl RunDirs ===

impl RunDirs {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn create(&self) -> io::Result<RunDir> {
        let path = self
            .root
            .join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(&path)?;
        Ok(RunDir(path))
    }

    /// Kills the monitors that an earlier pool left behind, and removes their directories.
    pub(crate) fn reap(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if let Ok(pidfile) = fs::read_to_string(path.join(PIDFILE)) {
                kill_stale_monitor(&pidfile);
            }
            fs::remove_dir_all(&path)?;
        }
        Ok(())
    }
}

fn kill_stale_monitor(pidfile: &str) {
    let Some(process) = Process::parse(pidfile) else {
        return;
    };
    if process.pid == std::process::id()
        || Process::read(process.pid).ok().as_ref() != Some(&process)
    {
        return;
    }
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    match kill_process(pid, Signal::KILL) {
        Ok(()) => info!(pid = process.pid, "stale monitor killed"),
        Err(error) => {
            let error = error_chain::chain(&error);
            warn!(pid = process.pid, %error, "failed to kill stale monitor");
        }
    }
}

// === impl RunDir ===

impl RunDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the pidfile. A monitor in this process needs none.
    pub(crate) fn write_pidfile(&self, pid: u32) -> io::Result<()> {
        if pid == std::process::id() {
            return Ok(());
        }
        let process = Process::read(pid)?;
        fs::write(self.0.join(PIDFILE), process.to_pidfile())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            let error = error_chain::chain(&error);
            warn!(path = %self.0.display(), %error, "failed to remove run directory");
        }
    }
}

// === impl Process ===

impl Process {
    fn read(pid: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let executable = fs::read_link(proc.join("exe"))?;
        let stat = fs::read_to_string(proc.join("stat"))?;
        // proc(5): the 2nd field is the name in parentheses, which may contain any byte; the 22nd is the start time.
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
        let started = after_name.and_then(|rest| rest.split_whitespace().nth(19));
        let started = started.ok_or(io::ErrorKind::InvalidData)?.to_owned();
        Ok(Self {
            pid,
            started,
            executable,
        })
    }

    fn to_pidfile(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.pid,
            self.started,
            self.executable.display()
        )
    }

    fn parse(pidfile: &str) -> Option<Self> {
        let mut lines = pidfile.lines();
        let pid = lines.next()?.parse().ok()?;
        let started = lines.next()?.to_owned();
        Some(Self {
            pid,
            started,
            executable: lines.next()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Reaped(Child);

    impl Drop for Reaped {
        fn drop(&mut self) {
            // It may have exited already.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn stale_monitor_is_killed_and_other_process_is_not() {
        use std::os::unix::process::ExitStatusExt;
        let dir = tempfile::tempdir().unwrap();
        let spawn = || Reaped(Command::new("sleep").arg("600").spawn().unwrap());
        let (mut stale_monitor, mut unrelated) = (spawn(), spawn());
        let dirs = RunDirs::new(dir.path().join("run"));
        let (first, second) = (dirs.create().unwrap(), dirs.create().unwrap());
        first.write_pidfile(stale_monitor.0.id()).unwrap();
        second.write_pidfile(unrelated.0.id()).unwrap();
        // The second pidfile is of an earlier process with the same pid.
        let pidfile = fs::read_to_string(second.path().join(PIDFILE)).unwrap();
        let process = Process {
            started: "1".to_owned(),
            ..Process::parse(&pidfile).unwrap()
        };
        fs::write(second.path().join(PIDFILE), process.to_pidfile()).unwrap();

        RunDirs::new(dir.path().join("run")).reap().unwrap();
        assert_eq!(stale_monitor.0.wait().unwrap().signal(), Some(9));
        assert!(unrelated.0.try_wait().unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
        std::mem::forget((first, second));
    }

    #[test]
    fn malformed_pidfile_is_ignored() {
        for pidfile in ["", "x", "1", "4294967296\n1\n/x", "1\n2"] {
            assert_eq!(Process::parse(pidfile), None, "{pidfile:?}");
        }
    }
}
