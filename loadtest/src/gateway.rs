//! A gateway process, and a client to it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

const KEY: &str = "e2b_0000000000000000000000000000000000000000";
/// Time limit for building the template and responding.
const READY_TIMEOUT: Duration = Duration::from_secs(240);
/// The time between two health checks of a gateway that starts.
const POLL: Duration = Duration::from_millis(10);

/// A client of a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: SocketAddr,
}

/// A `catnap up` process. Dropping it kills it.
pub(crate) struct Gateway {
    child: Child,
    client: Client,
    data: PathBuf,
}

/// The way to start a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) address: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) guest: Option<PathBuf>,
    pub(crate) arguments: Vec<String>,
    /// The file for the log; `None` for this program's stderr.
    pub(crate) log: Option<PathBuf>,
}

impl Launch {
    /// Launches a gateway on a free port.
    pub(crate) fn new(
        data: &Path,
        guest: Option<&Path>,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        Ok(Self {
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            data: data.to_owned(),
            guest: guest.map(Path::to_owned),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            log: None,
        })
    }

    /// Starts `catnap` from the directory of this program and waits until it is healthy.
    pub(crate) async fn start(&self) -> anyhow::Result<Gateway> {
        let mut gateway = self.spawn()?;
        let started = Instant::now();
        while !gateway.client.is_healthy().await {
            if let Some(status) = gateway.child.try_wait()? {
                bail!("the gateway exited: {status}");
            }
            anyhow::ensure!(
                started.elapsed() < READY_TIMEOUT,
                "the gateway did not become ready"
            );
            sleep(POLL).await;
        }
        Ok(gateway)
    }

    fn spawn(&self) -> anyhow::Result<Gateway> {
        let program = std::env::current_exe()?.with_file_name("catnap");
        let mut command = Command::new(&program);
        command
            .args([
                "up",
                "--listen",
                &self.address.to_string(),
                "--api-key",
                KEY,
            ])
            .args(&self.arguments)
            .arg("--data-dir")
            .arg(&self.data)
            // Log writes would disturb the measurement.
            .env("RUST_LOG", "warn")
            .kill_on_drop(true)
            .stdout(Stdio::null());
        if let Some(log) = &self.log {
            command.stderr(File::options().create(true).append(true).open(log)?);
        }
        if let Some(guest) = &self.guest {
            command.arg("--guest-dir").arg(guest);
        }
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Gateway {
            child,
            client: Client {
                address: self.address,
            },
            data: self.data.clone(),
        })
    }
}

impl Gateway {
    /// Starts a gateway on a free port.
    pub(crate) async fn start(
        data: &Path,
        guest: Option<&Path>,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        Launch::new(data, guest, arguments)?.start().await
    }

    /// Returns a client of this gateway.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Calls the API and returns the JSON of the response.
    pub(crate) async fn api(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        self.client.api(method, path, body).await
    }

    /// Shuts the gateway down and waits for its exit.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(self.pid()?, Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "the gateway exited: {status}");
        Ok(())
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        self.child.wait().await?;
        Ok(())
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.child.id().context("the gateway has exited")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }

    /// Returns the resident memory of the gateway in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .context("no VmRSS")?
            .parse()
            .context("failed to parse VmRSS")
    }

    /// Removes the recorded working sets, so that every page of the next wake faults.
    pub(crate) fn remove_working_sets(&self) -> anyhow::Result<()> {
        for snapshot in fs::read_dir(self.data.join("snapshots"))? {
            let working_set = snapshot?.path().join("working-set");
            match fs::remove_file(&working_set) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("failed to remove {}", working_set.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Client {
    async fn is_healthy(&self) -> bool {
        let request = Request::get("/health").header("host", "api.localhost");
        match self.send(request, Bytes::new()).await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        }
    }

    /// Calls the API and returns the JSON of the response.
    async fn api(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, bytes) = self.call(method, path, body).await?;
        anyhow::ensure!(
            status.is_success(),
            "{method} {path}: {status} {}",
            String::from_utf8_lossy(&bytes)
        );
        Ok(if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)?
        })
    }

    /// Calls the API and returns the status and body of the response.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "api.localhost")
            .header("x-api-key", KEY)
            .header("content-type", "application/json");
        self.exchange(request, body.into()).await
    }

    /// Calls the agent of a sandbox that needs no token, and returns the status and body of the response.
    pub(crate) async fn agent(
        &self,
        id: &str,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = request.header("host", format!("49983-{id}.localhost"));
        self.exchange(request, body).await
    }

    async fn exchange(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let response = self.send(request, body).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// Requests `/health` of the sandbox's agent; returns the time to the response head, and the stages that it
    /// reports.
    pub(crate) async fn request(
        &self,
        id: &str,
    ) -> anyhow::Result<(Duration, BTreeMap<String, Duration>)> {
        let request = Request::get("/health").header("host", format!("49983-{id}.localhost"));
        let started = Instant::now();
        let response = self.send(request, Bytes::new()).await?;
        let elapsed = started.elapsed();
        anyhow::ensure!(
            response.status().is_success(),
            "the sandbox responded {}",
            response.status()
        );
        let timing = response
            .headers()
            .get("server-timing")
            .map(|value| value.to_str().map(parse_stages));
        Ok((elapsed, timing.transpose()?.unwrap_or_default()))
    }

    /// Sends a request on a new connection.
    async fn send(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The connection ends with the response, which reports its errors.
        tokio::spawn(connection);
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }
}

/// Parses durations in milliseconds from `a;dur=1.5, b;dur=2;desc="x"`.
fn parse_stages(timing: &str) -> BTreeMap<String, Duration> {
    let mut stages = BTreeMap::new();
    for entry in timing.split(',') {
        let mut parts = entry.trim().split(';');
        let name = parts.next().unwrap_or_default().to_owned();
        let millis = parts.find_map(|part| part.trim().strip_prefix("dur=")?.parse::<f64>().ok());
        if let Some(millis) = millis.filter(|millis| millis.is_finite() && *millis >= 0.0) {
            stages.insert(name, Duration::from_secs_f64(millis / 1e3));
        }
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_is_parsed_and_invalid_entries_skipped() {
        let parsed = parse_stages("wake;dur=1.5;desc=\"restore\", dial;dur=x, open;dur=2");
        let millis = |number| Duration::from_micros(number);
        assert_eq!(
            parsed,
            BTreeMap::from([
                ("wake".to_owned(), millis(1500)),
                ("open".to_owned(), millis(2000))
            ])
        );
    }
}
