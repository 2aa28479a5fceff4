//! The gateway process of the demo.

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

/// The longest time that the gateway may take to pause its sandboxes and exit.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// The number of log lines that are printed when the gateway fails.
const TAIL_LINES: usize = 10;

/// The paths and the address of the gateway.
#[derive(Debug, Clone)]
pub(super) struct GatewayConfig {
    /// The `catnap` executable.
    pub(super) program: PathBuf,
    /// The directory of all its state.
    pub(super) data_dir: PathBuf,
    /// The directory of the guest kernel and root disk.
    pub(super) guest_dir: PathBuf,
    /// The cache of booted templates, shared by all data directories.
    pub(super) template_cache: PathBuf,
    /// The listen address.
    pub(super) listen: SocketAddr,
}

/// The exit status of the gateway; `None` if waiting for it failed.
#[derive(Debug)]
pub(super) struct GatewayExit(Option<ExitStatus>);

/// A running gateway. Dropping it terminates the process.
#[derive(Debug)]
pub(super) struct Gateway {
    pid: Option<Pid>,
}

// === impl GatewayConfig ===

impl GatewayConfig {
    /// The file of its output.
    pub(super) fn log(&self) -> PathBuf {
        self.data_dir.join("gateway.log")
    }

    /// Reads the API key that the gateway created.
    pub(super) fn api_key(&self) -> Result<String> {
        let path = self.data_dir.join("api-key");
        let key = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        Ok(key.trim().to_owned())
    }
}

// === impl GatewayExit ===

impl GatewayExit {
    /// Describes the exit, with the last error or the end of the log.
    pub(super) fn describe(&self, log: &Path) -> String {
        let status = match self.0 {
            Some(status) => status.to_string(),
            None => "unknown status".to_owned(),
        };
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        // Prefer the error message of the gateway to the last lines of its log.
        if let Some(line) = lines.iter().rev().find(|line| line.starts_with("catnap: ")) {
            return format!("the gateway exited ({status}): {line}");
        }
        let tail = lines
            .get(lines.len().saturating_sub(TAIL_LINES)..)
            .unwrap_or_default();
        format!(
            "the gateway exited ({status}); the last lines of {}:\n  {}",
            log.display(),
            tail.join("\n  ")
        )
    }

    fn is_expected(&self) -> bool {
        // SIGTERM also stops a gateway that has not installed its handler yet.
        self.0.is_some_and(|status| {
            status.success() || status.signal() == Some(Signal::SIGTERM as i32)
        })
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts the gateway, and calls `on_exit` when it exits.
    pub(super) fn start(
        config: &GatewayConfig,
        on_exit: impl FnOnce(GatewayExit) + Send + 'static,
    ) -> Result<Self> {
        fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("failed to create {}", config.data_dir.display()))?;
        let log = File::create(config.log())
            .with_context(|| format!("failed to open {}", config.log().display()))?;
        let mut child = Command::new(&config.program)
            .args(["up", "--listen", &config.listen.to_string()])
            .arg("--data-dir")
            .arg(&config.data_dir)
            .arg("--guest-dir")
            .arg(&config.guest_dir)
            .env("CATNAP_TEMPLATE_CACHE", &config.template_cache)
            // The demo reads the key from the data directory.
            .env_remove("CATNAP_API_KEY")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C reaches the demo only, which then terminates the gateway.
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {}", config.program.display()))?;
        let pid = i32::try_from(child.id()).context("failed to convert the process id")?;
        thread::Builder::new()
            .name("gateway".to_owned())
            .spawn(move || on_exit(GatewayExit(child.wait().ok())))
            .context("failed to start the thread that waits for the gateway")?;
        Ok(Self {
            pid: Some(Pid::from_raw(pid)),
        })
    }

    /// Records that the process exited, so that it is not terminated.
    pub(super) fn mark_exited(&mut self) {
        self.pid = None;
    }

    /// Terminates the gateway and waits until it exits.
    pub(super) fn stop(mut self, events: &Receiver<Event>) -> Result<()> {
        let Some(pid) = self.pid.take() else {
            return Ok(());
        };
        terminate(pid);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while let Ok(event) =
            events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            match event {
                Event::GatewayExited(exit) if exit.is_expected() => {
                    eprintln!("the gateway stopped");
                    return Ok(());
                }
                Event::GatewayExited(exit) => bail!("the gateway failed while stopping: {exit:?}"),
                Event::Interrupted => eprintln!("the gateway is stopping ..."),
                Event::Finished(_) => {}
            }
        }
        kill(pid, Signal::SIGKILL).context("failed to kill the gateway")?;
        bail!(
            "killed the gateway because it did not stop within {} s",
            STOP_TIMEOUT.as_secs()
        )
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            terminate(pid);
        }
    }
}

fn terminate(pid: Pid) {
    match kill(pid, Signal::SIGTERM) {
        // If the process has exited, its exit is among the events.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => eprintln!("failed to terminate the gateway: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_is_described_by_the_error_or_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("gateway.log");
        fs::write(&log, "INFO x\ncatnap: open /dev/kvm\nINFO y\n").unwrap();
        let text = GatewayExit(Some(ExitStatus::from_raw(1 << 8))).describe(&log);
        assert_eq!(
            text,
            "the gateway exited (exit status: 1): catnap: open /dev/kvm"
        );
        fs::write(&log, "thread panicked\n").unwrap();
        assert!(
            GatewayExit(None)
                .describe(&log)
                .ends_with("gateway.log:\n  thread panicked")
        );
    }

    #[test]
    fn stop_terminates_the_gateway_and_waits() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("catnap");
        // Handles the signal after a delay, and logs that.
        let script = "#!/bin/sh\ntrap 'echo stopped; exit 0' TERM\necho \"$@ $CATNAP_TEMPLATE_CACHE\"\nwhile :; do sleep 0.05; done\n";
        fs::write(&program, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).unwrap();
        let config = GatewayConfig {
            program,
            data_dir: dir.path().join("data"),
            guest_dir: "/guest".into(),
            template_cache: "/templates".into(),
            listen: "127.0.0.1:1".parse().unwrap(),
        };
        let (sender, events) = std::sync::mpsc::channel();
        let gateway = Gateway::start(&config, move |exit| {
            sender.send(Event::GatewayExited(exit)).unwrap();
        })
        .unwrap();
        // The script sets the trap before it prints the arguments.
        let log = || fs::read_to_string(config.log()).unwrap();
        while !log().contains("up --listen") {
            thread::yield_now();
        }
        gateway.stop(&events).unwrap();
        assert!(log().contains("--guest-dir /guest /templates\nstopped"));
    }
}
