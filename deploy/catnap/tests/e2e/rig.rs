//! A gateway of a test's own: `catnap up` on a fresh data directory that has the template in it already.

mod build;
mod monitors;
mod reply;
mod sandbox;
mod workdir;

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

use self::{build::Built, workdir::WorkDir};
pub(crate) use self::{monitors::monitors_of, reply::Reply, sandbox::Sandbox};

/// The longest any test waits for one thing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The key of every gateway here.
pub(crate) const KEY: &str = "e2b_0000000000000000000000000000000000000000";
/// What marks a gateway's processes as ours, in their environment.
const MARK: &str = "CATNAP_E2E_WORK";

/// A gateway.
pub(crate) struct Gateway {
    pub(crate) built: Built,
    pub(crate) work: WorkDir,
    pub(crate) http: reqwest::Client,
    args: Vec<String>,
    up: Option<Up>,
}

/// A `catnap up` that listens.
struct Up {
    child: Child,
    url: String,
    /// Kept open, so that it can go on printing.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Gateway {
    /// A gateway as it comes; `None`, said aloud, where there is no KVM.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(&[]).await
    }

    /// A gateway with these arguments more.
    pub(crate) async fn with(args: &[&str]) -> Option<Self> {
        if !has_kvm() {
            return None;
        }
        let (built, work) = tokio::task::spawn_blocking(|| {
            let built = Built::find();
            let work = WorkDir::with_template(&built);
            (built, work)
        })
        .await
        .unwrap();
        let mut gateway = Self {
            built,
            work,
            http: http(),
            args: args.iter().map(ToString::to_string).collect(),
            up: None,
        };
        gateway.up().await;
        Some(gateway)
    }

    /// Starts `catnap up`, again if it ran before.
    pub(crate) async fn up(&mut self) {
        assert!(self.up.is_none(), "it is up");
        let mut command = self.built.up(&self.work.data(), self.work.path());
        command.args(&self.args).stderr(self.work.append_log());
        self.up = Some(Up::start(command).await);
    }

    /// Where it listens, as a URL.
    pub(crate) fn url(&self) -> &str {
        &self.up.as_ref().unwrap().url
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> &str {
        self.url().strip_prefix("http://").unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.work.log()
    }

    /// Monitors that are alive now and belong to this gateway, or to one on the same data directory before it.
    pub(crate) fn monitors(&self) -> Vec<Pid> {
        monitors_of(self.work.path())
    }

    /// Calls the API.
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

    /// A sandbox made with these members of the request, woken by requests unless they say otherwise.
    pub(crate) async fn create(&self, members: Value) -> Sandbox {
        let mut body = json!({
            "templateID": "base",
            "timeout": 3600,
            "autoPause": true,
            "autoResume": { "enabled": true },
        });
        let Value::Object(members) = members else {
            panic!("members of a request, not {members}")
        };
        for (name, value) in members {
            body[name] = value;
        }
        let (status, made) = self.api(Method::POST, "/v2/sandboxes", Some(body)).await;
        assert_eq!(status, 201, "{made}");
        Sandbox::new(&made)
    }

    /// A sandbox that runs the probe on [`Sandbox::PROBE`].
    pub(crate) async fn probed(&self, members: Value) -> Sandbox {
        let sandbox = self.create(members).await;
        sandbox.run_probe(self).await;
        sandbox
    }

    /// The catnap command line at this gateway.
    pub(crate) fn catnap(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.built.catnap);
        command
            .args(args)
            .env("CATNAP_URL", self.url())
            .env("CATNAP_API_KEY", KEY)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Ends `catnap up` with a signal and waits until it is gone.
    pub(crate) async fn signal(&mut self, signal: Signal) -> ExitStatus {
        let mut up = self.up.take().unwrap();
        kill(up.pid(), signal).unwrap();
        timeout(PATIENCE, up.child.wait()).await.unwrap().unwrap()
    }

    /// Kills every sandbox, waits until nothing of them is left, ends the gateway, and waits until nothing of it is.
    pub(crate) async fn finish(mut self) {
        let (status, listed) = self.api(Method::GET, "/v2/sandboxes?limit=100", None).await;
        assert_eq!(status, 200);
        for sandbox in listed.as_array().unwrap() {
            let path = format!("/sandboxes/{}", sandbox["sandboxID"].as_str().unwrap());
            let (status, answer) = self.api(Method::DELETE, &path, None).await;
            assert_eq!(status, 204, "{answer}");
        }
        until("only the template and blanks are left", async || {
            // A blank has a directory, a socket and a process each, and no sandbox has any.
            let (left, monitors) = (self.work.left(), self.monitors());
            let clean = left.of_sandboxes.is_empty() && left.runs == monitors.len();
            clean.then_some(()).ok_or(format!("{left:?} {monitors:?}"))
        })
        .await;
        let status = self.signal(Signal::SIGTERM).await;
        assert!(status.success(), "{status}\n{}", self.log());
        until("no monitor and no socket is left", async || {
            let (left, monitors) = (self.work.left(), self.monitors());
            let clean =
                left.of_sandboxes.is_empty() && left.sockets.is_empty() && monitors.is_empty();
            clean.then_some(()).ok_or(format!("{left:?} {monitors:?}"))
        })
        .await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            // It may have ended by itself.
            let _ = up.child.start_kill();
        }
        for pid in self.monitors() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- what the gateway logged ---\n{}", self.log());
            for (path, text) in self.work.consoles() {
                eprintln!("--- {} ---\n{text}", path.display());
            }
        }
    }
}

impl Up {
    async fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = timeout(PATIENCE, async {
            let mut said = String::new();
            while let Some(line) = stdout.next_line().await.unwrap() {
                if let Some(url) = line.strip_prefix("catnap listens on ") {
                    return Ok(url.to_owned());
                }
                writeln!(said, "{line}").unwrap();
            }
            Err(format!("catnap up ended: {said}"))
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

/// Asks again and again until the answer is there; fails with the last objection when it does not come.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let objection = match ask().await {
            Ok(answer) => return answer,
            Err(objection) => objection,
        };
        assert!(Instant::now() < deadline, "waited for: {what}: {objection}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether guests can run here; said aloud when not.
pub(crate) fn has_kvm() -> bool {
    let there = Path::new("/dev/kvm").exists();
    if !there {
        eprintln!("SKIPPED: there is no /dev/kvm on this machine, and this test runs a real guest");
    }
    there
}

/// A client that keeps no connection and asks no proxy.
fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

/// Every file below a directory.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        // What is removed meanwhile is not there.
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Opens a file to write at its end.
fn append(path: &Path) -> File {
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
}
