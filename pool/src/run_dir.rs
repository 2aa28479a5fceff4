//! The run directories of monitors, each with a pidfile.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};
use tracing::{info, warn};

const PIDFILE: &str = "monitor.pid";

/// A monitor's run directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    root: DirIdentity,
}

/// The parent of the run directories.
#[derive(Debug)]
pub(crate) struct RunDirs {
    root: PathBuf,
    next: AtomicU64,
}

/// The content of a pidfile.
///
/// A directory's copy has another inode, and a directory whose pool is alive is in use: only the directory that started a
/// monitor kills it, and only once its pool is gone.
#[derive(Debug, PartialEq, Eq)]
struct Pidfile {
    monitor: Process,
    /// The pool that spawned it.
    pool: Process,
    root: DirIdentity,
}

/// A process. Start time and executable distinguish it from a later one with the same pid.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    started: String,
    executable: PathBuf,
}

/// The device and inode of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DirIdentity {
    device: u64,
    inode: u64,
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
        Ok(RunDir {
            path,
            root: DirIdentity::of(&self.root)?,
        })
    }

    /// Kills the monitors that an earlier pool left behind, and removes their directories.
    pub(crate) fn reap(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if let Ok(pidfile) = fs::read_to_string(path.join(PIDFILE)) {
                kill_stale_monitor(&pidfile, DirIdentity::of(&self.root)?);
            }
            fs::remove_dir_all(&path)?;
        }
        Ok(())
    }
}

fn kill_stale_monitor(pidfile: &str, root: DirIdentity) {
    let Some(pidfile) = Pidfile::parse(pidfile) else {
        return;
    };
    let process = pidfile.monitor;
    if process.pid == std::process::id() || !process.is_alive() {
        return;
    }
    if pidfile.root != root || pidfile.pool.is_alive() {
        warn!(
            pid = process.pid,
            "monitor of another data directory is left alone"
        );
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
        &self.path
    }

    /// Writes the pidfile. A monitor in this process needs none.
    pub(crate) fn write_pidfile(&self, pid: u32) -> io::Result<()> {
        if pid == std::process::id() {
            return Ok(());
        }
        let pidfile = Pidfile {
            monitor: Process::read(pid)?,
            pool: Process::read(std::process::id())?,
            root: self.root,
        };
        fs::write(self.path.join(PIDFILE), pidfile.to_text())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            let error = error_chain::chain(&error);
            warn!(path = %self.path.display(), %error, "failed to remove run directory");
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

    fn is_alive(&self) -> bool {
        Self::read(self.pid).ok().as_ref() == Some(self)
    }

    fn to_line(&self) -> String {
        format!(
            "{} {} {}",
            self.pid,
            self.started,
            self.executable.display()
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.to_owned(),
            executable: words.next()?.into(),
        })
    }
}

// === impl DirIdentity ===

impl DirIdentity {
    fn of(dir: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(dir)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

// === impl Pidfile ===

impl Pidfile {
    fn to_text(&self) -> String {
        format!(
            "{}\n{}\n{} {}\n",
            self.monitor.to_line(),
            self.pool.to_line(),
            self.root.device,
            self.root.inode
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let monitor = Process::parse(lines.next()?)?;
        let pool = Process::parse(lines.next()?)?;
        let (device, inode) = lines.next()?.split_once(' ')?;
        let root = DirIdentity {
            device: device.parse().ok()?,
            inode: inode.parse().ok()?,
        };
        Some(Self {
            monitor,
            pool,
            root,
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

    fn sleeper() -> Reaped {
        Reaped(Command::new("sleep").arg("600").spawn().unwrap())
    }

    /// Changes the pidfile of a run directory.
    fn edit(dir: &RunDir, change: impl FnOnce(&mut Pidfile)) {
        let path = dir.path().join(PIDFILE);
        let mut pidfile = Pidfile::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut pidfile);
        fs::write(path, pidfile.to_text()).unwrap();
    }

    /// The pool that spawned the monitor is gone.
    fn end_pool(pidfile: &mut Pidfile) {
        pidfile.pool.started = "1".to_owned();
    }

    #[test]
    fn stale_monitor_is_killed_and_other_process_is_not() {
        use std::os::unix::process::ExitStatusExt;
        let dir = tempfile::tempdir().unwrap();
        let (mut stale_monitor, mut unrelated) = (sleeper(), sleeper());
        let dirs = RunDirs::new(dir.path().join("run"));
        let (first, second) = (dirs.create().unwrap(), dirs.create().unwrap());
        first.write_pidfile(stale_monitor.0.id()).unwrap();
        second.write_pidfile(unrelated.0.id()).unwrap();
        edit(&first, end_pool);
        edit(&second, |pidfile| {
            end_pool(pidfile);
            // An earlier process with the same pid.
            pidfile.monitor.started = "1".to_owned();
        });
        RunDirs::new(dir.path().join("run")).reap().unwrap();
        assert_eq!(stale_monitor.0.wait().unwrap().signal(), Some(9));
        assert!(unrelated.0.try_wait().unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
        std::mem::forget((first, second));
    }

    #[test]
    fn copied_directory_kills_no_monitor_of_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let (mut of_live_pool, mut of_dead_pool) = (sleeper(), sleeper());
        let dirs = RunDirs::new(dir.path().join("run"));
        let (first, second) = (dirs.create().unwrap(), dirs.create().unwrap());
        first.write_pidfile(of_live_pool.0.id()).unwrap();
        second.write_pidfile(of_dead_pool.0.id()).unwrap();
        edit(&second, end_pool);
        let copy = dir.path().join("copy");
        for run_dir in [&first, &second] {
            let to = copy.join(run_dir.path().file_name().unwrap());
            fs::create_dir_all(&to).unwrap();
            fs::copy(run_dir.path().join(PIDFILE), to.join(PIDFILE)).unwrap();
        }
        RunDirs::new(copy.clone()).reap().unwrap();
        // The same directory, while its pool is alive: that of a rename, for example.
        edit(&second, |pidfile| {
            pidfile.pool = Process::read(std::process::id()).unwrap();
        });
        RunDirs::new(dir.path().join("run")).reap().unwrap();
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 0);
        for monitor in [&mut of_live_pool, &mut of_dead_pool] {
            assert!(monitor.0.try_wait().unwrap().is_none());
        }
        std::mem::forget((first, second));
    }

    #[test]
    fn malformed_pidfile_is_ignored() {
        let process = "1 2 /x";
        for pidfile in [
            "",
            "x",
            "1",
            &format!("{process}\n{process}\n1"),
            "1\n2\n3 4",
        ] {
            assert_eq!(Pidfile::parse(pidfile), None, "{pidfile:?}");
        }
    }
}
