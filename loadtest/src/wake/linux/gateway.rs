//! A gateway of the benchmark's own.

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
/// How long a gateway may take to build its template and answer.
const READY: Duration = Duration::from_secs(240);

/// `catnap up`, ended when dropped.
pub(super) struct Gateway {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
}

impl Gateway {
    /// Starts `catnap`, which lies beside this program.
    pub(super) async fn start(
        dir: &Path,
        guest: Option<&Path>,
        memory: &str,
    ) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let program = std::env::current_exe()?.with_file_name("catnap");
        let mut command = Command::new(&program);
        command.args([
            "up",
            "--listen",
            &address.to_string(),
            "--api-key",
            KEY,
            "--memory",
            memory,
            "--data-dir",
        ]);
        let data = dir.join("data");
        command
            .arg(&data)
            // What it has to say while it is measured.
            .env("RUST_LOG", "warn")
            .kill_on_drop(true)
            .stdout(std::process::Stdio::null());
        if let Some(guest) = guest {
            command.arg("--guest-dir").arg(guest);
        }
        let child = command
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut gateway = Self {
            child,
            address,
            data,
        };
        let begun = Instant::now();
        while !gateway.answers().await {
            if let Some(status) = gateway.child.try_wait()? {
                bail!("the gateway ended: {status}");
            }
            anyhow::ensure!(begun.elapsed() < READY, "the gateway did not become ready");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(gateway)
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("the gateway runs")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "the gateway ended: {status}");
        Ok(())
    }

    /// Removes what was recorded of earlier lives: the next wake finds out which pages it needs.
    pub(super) fn forget_working_sets(&self) -> anyhow::Result<()> {
        for snapshot in fs::read_dir(self.data.join("snapshots"))? {
            let recorded = snapshot?.path().join("working-set");
            match fs::remove_file(&recorded) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", recorded.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn answers(&self) -> bool {
        let request = Request::get("/health").header("host", "api.localhost");
        match self.send(request, Bytes::new()).await {
            Ok(answer) => answer.status().is_success(),
            Err(_) => false,
        }
    }

    /// Calls the API; the answer's JSON.
    pub(super) async fn api(
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
        let answer = self.send(request, body.into()).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
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

    /// Asks the sandbox's agent for its health: how long the answer took to begin, and what it says of its stages.
    pub(super) async fn request(
        &self,
        id: &str,
    ) -> anyhow::Result<(Duration, BTreeMap<String, Duration>)> {
        let request = Request::get("/health").header("host", format!("49983-{id}.localhost"));
        let begun = Instant::now();
        let answer = self.send(request, Bytes::new()).await?;
        let took = begun.elapsed();
        anyhow::ensure!(
            answer.status().is_success(),
            "the sandbox answered {}",
            answer.status()
        );
        let timing = answer
            .headers()
            .get("server-timing")
            .map(|value| value.to_str().map(stages));
        Ok((took, timing.transpose()?.unwrap_or_default()))
    }

    /// One request on a connection of its own.
    async fn send(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer; what goes wrong with it is the answer's error.
        tokio::spawn(connection);
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }
}

/// `a;dur=1.5, b;dur=2;desc="x"` in milliseconds.
fn stages(timing: &str) -> BTreeMap<String, Duration> {
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
mod test {
    use super::*;

    #[test]
    fn stages_are_read_and_nonsense_is_passed_over() {
        let read = stages("wake;dur=1.5;desc=\"restore\", dial;dur=x, open;dur=2");
        let millis = |number| Duration::from_micros(number);
        assert_eq!(
            read,
            BTreeMap::from([
                ("wake".to_owned(), millis(1500)),
                ("open".to_owned(), millis(2000))
            ])
        );
    }
}
