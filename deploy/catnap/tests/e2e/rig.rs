//! A gateway for one test: `catnap up` on a new data directory that contains the built template.

mod artefacts;
mod monitors;
mod reply;
mod sandbox;
mod work_dir;

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Once,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

use self::monitors::monitors_of;
pub(crate) use self::{artefacts::Artefacts, reply::Reply, sandbox::Sandbox, work_dir::WorkDir};

/// The timeout of one step of a test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);
/// The API key of every gateway.
pub(crate) const KEY: &str = "e2b_0000000000000000000000000000000000000000";

pub(crate) struct Gateway {
    pub(crate) artefacts: Artefacts,
    pub(crate) work: WorkDir,
    pub(crate) http: reqwest::Client,
    args: Vec<String>,
    process: Option<GatewayProcess>,
}

/// A running `catnap up`.
struct GatewayProcess {
    child: Child,
    url: String,
    /// Open, so that writes to it do not fail.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Gateway {
    /// Starts a gateway with default arguments. Returns `None`, and prints a notice, if there is no KVM.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a gateway with additional arguments. Returns `None`, and prints a notice, if there is no KVM.
    pub(crate) async fn start_with(args: &[&str]) -> Option<Self> {
        let (artefacts, work) = work_dir_with_template().await?;
        let mut gateway = Self {
            artefacts,
            work,
            http: http_client(),
            args: args.iter().map(ToString::to_string).collect(),
            process: None,
        };
        gateway.start_process().await;
        Some(gateway)
    }

    /// Starts `catnap up`, for the first time or after [`Gateway::stop_with`].
    pub(crate) async fn start_process(&mut self) {
        assert!(self.process.is_none(), "the gateway runs");
        let mut command = self.artefacts.up(&self.work.data());
        command.args(&self.args).stderr(self.work.append_log());
        self.process = Some(GatewayProcess::start(command).await);
    }

    /// Returns the URL of the plain listener.
    pub(crate) fn url(&self) -> &str {
        &self.process.as_ref().unwrap().url
    }

    /// Returns the address of the plain listener.
    pub(crate) fn address(&self) -> &str {
        self.url().strip_prefix("http://").unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.work.log()
    }

    /// Returns the process of the gateway.
    pub(crate) fn pid(&self) -> Pid {
        self.process.as_ref().unwrap().pid()
    }

    /// Returns the live monitors of this data directory, including those of an earlier gateway process.
    pub(crate) fn monitors(&self) -> Vec<Pid> {
        monitors_of(self.work.path())
    }

    /// Calls the API, and returns the status and body of the response.
    pub(crate) async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url()))
            .header("X-API-Key", KEY);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        let value = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        (status, value)
    }

    /// Creates a sandbox. The default, which `overrides` replaces, wakes on requests.
    pub(crate) async fn create(&self, overrides: Value) -> Sandbox {
        let mut body = json!({
            "templateID": "base",
            "timeout": 3600,
            "autoPause": true,
            "autoResume": { "enabled": true },
        });
        let Value::Object(overrides) = overrides else {
            panic!("{overrides} is not an object")
        };
        for (name, value) in overrides {
            body[name] = value;
        }
        let (status, created) = self.api(Method::POST, "/v2/sandboxes", Some(body)).await;
        assert_eq!(status, 201, "{created}");
        Sandbox::new(&created)
    }

    /// Creates a sandbox that serves the probe on [`Sandbox::PROBE_PORT`].
    pub(crate) async fn create_with_probe(&self, overrides: Value) -> Sandbox {
        let sandbox = self.create(overrides).await;
        sandbox.start_probe(self).await;
        sandbox
    }

    /// Builds a `catnap` command that calls this gateway.
    pub(crate) fn catnap(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.artefacts.catnap);
        command
            .args(args)
            .env("CATNAP_URL", self.url())
            .env("CATNAP_API_KEY", KEY)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Sends a signal to `catnap up`, and waits until it exits.
    pub(crate) async fn stop_with(&mut self, signal: Signal) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        kill(process.pid(), signal).unwrap();
        timeout(TIMEOUT, process.child.wait())
            .await
            .unwrap()
            .unwrap()
    }

    /// Kills every sandbox, stops the gateway, and asserts that neither leaves files, sockets or processes.
    pub(crate) async fn finish(mut self) {
        let (status, listed) = self.api(Method::GET, "/v2/sandboxes?limit=100", None).await;
        assert_eq!(status, 200);
        for sandbox in listed.as_array().unwrap() {
            let path = format!("/sandboxes/{}", sandbox["sandboxID"].as_str().unwrap());
            let (status, body) = self.api(Method::DELETE, &path, None).await;
            assert_eq!(status, 204, "{body}");
        }
        wait_until("only template and blanks remain", async || {
            // A blank has a run directory and a process, and no sandbox has any.
            let (remaining, monitors) = (self.work.remaining(), self.monitors());
            let clean = remaining.sandbox_files.is_empty() && remaining.run_dirs == monitors.len();
            clean
                .then_some(())
                .ok_or(format!("{remaining:?} {monitors:?}"))
        })
        .await;
        let status = self.stop_with(Signal::SIGTERM).await;
        assert!(status.success(), "{status}\n{}", self.log());
        wait_until("neither monitors nor sockets remain", async || {
            let (remaining, monitors) = (self.work.remaining(), self.monitors());
            let clean = remaining.sandbox_files.is_empty()
                && remaining.sockets.is_empty()
                && monitors.is_empty();
            clean
                .then_some(())
                .ok_or(format!("{remaining:?} {monitors:?}"))
        })
        .await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Fails if the process has exited.
            let _ = process.child.start_kill();
        }
        for pid in self.monitors() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- gateway log ---\n{}", self.log());
            for (path, text) in self.work.consoles() {
                eprintln!("--- {} ---\n{text}", path.display());
            }
        }
    }
}

impl GatewayProcess {
    async fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = timeout(TIMEOUT, async {
            let mut output = String::new();
            while let Some(line) = stdout.next_line().await.unwrap() {
                if let Some(url) = line.strip_prefix("catnap listens on ") {
                    return Ok(url.to_owned());
                }
                writeln!(output, "{line}").unwrap();
            }
            Err(format!("catnap up exited: {output}"))
        });
        let url = url.await.unwrap().unwrap();
        Self {
            child,
            url,
            _stdout: stdout,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap())
    }
}

/// Finds the artefacts and creates a work directory. Returns `None`, and prints a notice, if there is no KVM.
pub(crate) async fn work_dir_with_template() -> Option<(Artefacts, WorkDir)> {
    if !Path::new("/dev/kvm").exists() {
        eprintln!("SKIPPED: this test runs a guest, and this machine has no /dev/kvm");
        return None;
    }
    let prepared = tokio::task::spawn_blocking(|| {
        let artefacts = Artefacts::find();
        let work = WorkDir::with_template(&artefacts);
        (artefacts, work)
    });
    Some(prepared.await.unwrap())
}

/// Polls until `poll` succeeds, and returns its value. Panics with the last error after [`TIMEOUT`].
pub(crate) async fn wait_until<T>(
    condition: &str,
    mut poll: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let error = match poll().await {
            Ok(value) => return value,
            Err(error) => error,
        };
        assert!(
            Instant::now() < deadline,
            "timed out waiting until {condition}: {error}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Builds a client that uses each connection once, and no proxy.
fn http_client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(TIMEOUT)
        .build()
        .unwrap()
}

/// Lists every file below a directory.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        // An entry may be removed concurrently.
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// Opens a file for appending.
fn open_append(path: &Path) -> File {
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
}
