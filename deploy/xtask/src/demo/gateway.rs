//! The gateway's process, for as long as the demo.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Event;

/// How long the gateway may take to pause what runs and end.
const STOP: Duration = Duration::from_secs(120);
/// Lines of the log that are shown when it ends by itself.
const TAIL: usize = 10;

/// Where the gateway is and what it is given.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `catnap`.
    pub(super) program: PathBuf,
    /// Where it keeps everything.
    pub(super) data_dir: PathBuf,
    /// The guest kernel and root disk.
    pub(super) guest_dir: PathBuf,
    /// Where templates that were booted are kept for every data directory.
    pub(super) template_cache: PathBuf,
    /// Where it listens.
    pub(super) listen: SocketAddr,
}

/// How the gateway ended; `None` when that could not be found out.
#[derive(Debug)]
pub(super) struct Ended(Option<ExitStatus>);

/// A gateway that runs.
#[derive(Debug)]
pub(super) struct Gateway {
    pid: Option<Pid>,
}

// === impl Place ===

impl Place {
    /// What the gateway says goes there.
    pub(super) fn log(&self) -> PathBuf {
        self.data_dir.join("gateway.log")
    }

    /// The key the gateway made for itself.
    pub(super) fn api_key(&self) -> Result<String> {
        let path = self.data_dir.join("api-key");
        let key = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(key.trim().to_owned())
    }
}

// === impl Ended ===

impl Ended {
    /// The end of it and of its log, for a person.
    pub(super) fn say(&self, log: &Path) -> String {
        let how = match self.0 {
            Some(status) => status.to_string(),
            None => "nobody knows how".to_owned(),
        };
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        // What it says of itself, or else whatever it said last.
        if let Some(line) = lines.iter().rev().find(|line| line.starts_with("catnap: ")) {
            return format!("the gateway ended ({how}): {line}");
        }
        let tail = lines
            .get(lines.len().saturating_sub(TAIL)..)
            .unwrap_or_default();
        format!(
            "the gateway ended ({how}); the end of {}:\n  {}",
            log.display(),
            tail.join("\n  ")
        )
    }

    fn is_good(&self) -> bool {
        // A gateway that ends before it watches for the signal was still ended by us.
        self.0.is_some_and(|status| {
            status.success() || status.signal() == Some(Signal::SIGTERM as i32)
        })
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts it, and calls `ended` when it is no more.
    pub(super) fn start(place: &Place, ended: impl FnOnce(Ended) + Send + 'static) -> Result<Self> {
        fs::create_dir_all(&place.data_dir)
            .with_context(|| format!("make folder {}", place.data_dir.display()))?;
        let log =
            File::create(place.log()).with_context(|| format!("open {}", place.log().display()))?;
        let mut child = Command::new(&place.program)
            .args(["up", "--listen", &place.listen.to_string()])
            .arg("--data-dir")
            .arg(&place.data_dir)
            .arg("--guest-dir")
            .arg(&place.guest_dir)
            .env("CATNAP_TEMPLATE_CACHE", &place.template_cache)
            // The demo reads the key from where the gateway keeps it.
            .env_remove("CATNAP_API_KEY")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is the demo's alone, which tells the gateway.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", place.program.display()))?;
        let pid = i32::try_from(child.id()).context("read a process id")?;
        thread::Builder::new()
            .name("gateway".to_owned())
            .spawn(move || ended(Ended(child.wait().ok())))
            .context("start a thread that waits for the gateway")?;
        Ok(Self {
            pid: Some(Pid::from_raw(pid)),
        })
    }

    /// It ended by itself.
    pub(super) fn is_gone(&mut self) {
        self.pid = None;
    }

    /// Ends it, and its machines with it.
    pub(super) fn stop(mut self, happened: &Receiver<Event>) -> Result<()> {
        let Some(pid) = self.pid.take() else {
            return Ok(());
        };
        terminate(pid);
        let until = Instant::now() + STOP;
        while let Ok(event) = happened.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            match event {
                Event::Ended(how) if how.is_good() => {
                    eprintln!("the gateway has ended");
                    return Ok(());
                }
                Event::Ended(how) => bail!("the gateway ended badly: {how:?}"),
                Event::Interrupted => eprintln!("the gateway is ending ..."),
                Event::Told(_) => {}
            }
        }
        kill(pid, Signal::SIGKILL).context("kill the gateway")?;
        bail!(
            "the gateway did not end within {} s, and was killed",
            STOP.as_secs()
        )
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            // On the way out of an error.
            terminate(pid);
        }
    }
}

fn terminate(pid: Pid) {
    match kill(pid, Signal::SIGTERM) {
        // Gone already, then: its end is among the events.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => eprintln!("the gateway cannot be told to end: {error}"),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn its_own_words_are_quoted_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("gateway.log");
        fs::write(&log, "INFO x\ncatnap: open /dev/kvm\nINFO y\n").unwrap();
        let said = Ended(Some(ExitStatus::from_raw(1 << 8))).say(&log);
        assert_eq!(
            said,
            "the gateway ended (exit status: 1): catnap: open /dev/kvm"
        );
        fs::write(&log, "thread panicked\n").unwrap();
        assert!(
            Ended(None)
                .say(&log)
                .ends_with("gateway.log:\n  thread panicked")
        );
    }

    #[test]
    fn a_gateway_is_told_to_end_and_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("catnap");
        // Takes the signal in its own time, and says so.
        let script = "#!/bin/sh\ntrap 'echo told; exit 0' TERM\necho \"$@ $CATNAP_TEMPLATE_CACHE\"\nwhile :; do sleep 0.05; done\n";
        fs::write(&program, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).unwrap();
        let place = Place {
            program,
            data_dir: dir.path().join("data"),
            guest_dir: "/guest".into(),
            template_cache: "/templates".into(),
            listen: "127.0.0.1:1".parse().unwrap(),
        };
        let (events, happened) = std::sync::mpsc::channel();
        let gateway = Gateway::start(&place, move |how| {
            events.send(Event::Ended(how)).unwrap();
        })
        .unwrap();
        // The trap is set before the arguments are said.
        let log = || fs::read_to_string(place.log()).unwrap();
        while !log().contains("up --listen") {
            thread::yield_now();
        }
        gateway.stop(&happened).unwrap();
        assert!(log().contains("--guest-dir /guest /templates\ntold"));
    }
}
