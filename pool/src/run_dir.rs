//! A directory for each monitor, with a note of which process it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};
use tracing::{info, warn};

const NOTE: &str = "monitor.pid";

/// A monitor's directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDir(PathBuf);

/// Makes them.
#[derive(Debug)]
pub(crate) struct RunDirs {
    root: PathBuf,
    next: AtomicU64,
}

/// A process and what tells it from a later one of the same number.
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

    /// Kills the monitors that a former pool left behind, and removes their directories.
    pub(crate) fn reap(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if let Ok(note) = fs::read_to_string(path.join(NOTE)) {
                kill_noted(&note);
            }
            fs::remove_dir_all(&path)?;
        }
        Ok(())
    }
}

fn kill_noted(note: &str) {
    let Some(process) = Process::parse(note) else {
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
        Ok(()) => info!(
            pid = process.pid,
            "killed a monitor that a former pool left behind"
        ),
        Err(error) => {
            warn!(pid = process.pid, %error, "cannot kill a monitor that was left behind");
        }
    }
}

// === impl RunDir ===

impl RunDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Notes whose directory it is. A monitor in this process needs none.
    pub(crate) fn note(&self, pid: u32) -> io::Result<()> {
        if pid == std::process::id() {
            return Ok(());
        }
        let process = Process::read(pid)?;
        fs::write(self.0.join(NOTE), process.note())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            warn!(path = %self.0.display(), %error, "cannot remove a monitor's directory");
        }
    }
}

// === impl Process ===

impl Process {
    fn read(pid: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let executable = fs::read_link(proc.join("exe"))?;
        let stat = fs::read_to_string(proc.join("stat"))?;
        // The name, second of the fields, is in parentheses and may hold anything; the time of start is the 22nd.
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
        let started = after_name.and_then(|rest| rest.split_whitespace().nth(19));
        let started = started.ok_or(io::ErrorKind::InvalidData)?.to_owned();
        Ok(Self {
            pid,
            started,
            executable,
        })
    }

    fn note(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.pid,
            self.started,
            self.executable.display()
        )
    }

    fn parse(note: &str) -> Option<Self> {
        let mut lines = note.lines();
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
mod test {
    use std::process::{Child, Command};

    use super::*;

    struct Reaped(Child);

    impl Drop for Reaped {
        fn drop(&mut self) {
            // It may be gone already; then there is nothing to clean up.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_monitor_left_behind_is_killed_and_a_stranger_is_not() {
        use std::os::unix::process::ExitStatusExt;
        let dir = tempfile::tempdir().unwrap();
        let spawn = || Reaped(Command::new("sleep").arg("600").spawn().unwrap());
        let (mut left, mut stranger) = (spawn(), spawn());
        let dirs = RunDirs::new(dir.path().join("run"));
        let (first, second) = (dirs.create().unwrap(), dirs.create().unwrap());
        first.note(left.0.id()).unwrap();
        second.note(stranger.0.id()).unwrap();
        // The second note is of another life of the same number.
        let note = fs::read_to_string(second.path().join(NOTE)).unwrap();
        let process = Process {
            started: "1".to_owned(),
            ..Process::parse(&note).unwrap()
        };
        fs::write(second.path().join(NOTE), process.note()).unwrap();

        RunDirs::new(dir.path().join("run")).reap().unwrap();
        assert_eq!(left.0.wait().unwrap().signal(), Some(9));
        assert!(stranger.0.try_wait().unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
        std::mem::forget((first, second));
    }

    #[test]
    fn a_note_that_is_none_is_passed_over() {
        for note in ["", "x", "1", "4294967296\n1\n/x", "1\n2"] {
            assert_eq!(Process::parse(note), None, "{note:?}");
        }
    }
}
