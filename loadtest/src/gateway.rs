//! A gateway process, and a client to it.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
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

/// A `catnap up` process. Dropping it kills it.
pub(crate) struct Gateway {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
}

impl Gateway {
    /// Starts `catnap` from the directory of this program and waits until it is healthy.
    pub(crate) async fn start(
        data: &Path,
        guest: Option<&Path>,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let program = std::env::current_exe()?.with_file_name("catnap");
        let mut command = Command::new(&program);
        command
            .args(["up", "--listen", &address.to_string(), "--api-key", KEY])
            .args(arguments)
            .arg("--data-dir")
            .arg(data)
            // Log writes would disturb the measurement.
            .env("RUST_LOG", "warn")
            .kill_on_drop(true)
            .stdout(std::process::Stdio::null());
        if let Some(guest) = guest {
            command.arg("--guest-dir").arg(guest);
        }
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let mut gateway = Self {
            child,
            address,
            data: data.to_owned(),
        };
        let started = Instant::now();
        while !gateway.is_healthy().await {
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

    /// Shuts the gateway down and waits for its exit.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("the gateway has exited")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "the gateway exited: {status}");
        Ok(())
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.child.id().context("the gateway has exited")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }

    #[allow(dead_code)]
    /// Kills the gateway and waits for its exit.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .context("failed to kill the gateway")
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

    async fn is_healthy(&self) -> bool {
        let request = Request::get("/health").header("host", "api.localhost");
        match self.send(request, Bytes::new()).await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        }
    }

    /// Calls the API and returns the JSON of the response.
    pub(crate) async fn api(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "api.localhost")
            .header("x-api-key", KEY)
            .header("content-type", "application/json");
        let response = self.send(request, body.into()).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
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
