//! One sandbox of the campaign and the numbers it must answer with.

use std::{fmt, time::Duration};

use anyhow::bail;
use bytes::Bytes;
use hyper::{Request, StatusCode};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::gateway::Client;

/// The file in the guest, which is in its page cache.
const FILE: &str = "/files?path=/home/user/number&username=user";
const BOUNDARY: &str = "chaos";
/// The time for one call. A wake may take a minute.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// The time for a sandbox to answer once the faults have stopped.
const RECOVERY: Duration = Duration::from_secs(180);

/// Counts of operations.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    creates: u64,
    writes: u64,
    pauses: u64,
    reads: u64,
    refused: u64,
    /// Sandboxes that ended before their first acknowledged pause.
    ended: u64,
}

/// A sandbox and the numbers that it may answer with.
pub(super) struct Sandbox {
    client: Client,
    number: u32,
    random: StdRng,
    id: Option<String>,
    /// The token that its agent demands.
    token: String,
    /// The number of the last acknowledged pause.
    durable: u64,
    /// The last number that the guest acknowledged.
    written: u64,
    /// The last number that was sent.
    sent: u64,
    pub(super) violations: Vec<String>,
    pub(super) totals: Totals,
}

impl Sandbox {
    pub(super) fn new(client: Client, number: u32, seed: u64) -> Self {
        Self {
            client,
            number,
            random: StdRng::seed_from_u64(seed),
            id: None,
            token: String::new(),
            durable: 0,
            written: 0,
            sent: 0,
            violations: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Uses the sandbox until `stop` is true.
    pub(super) async fn run_until(mut self, stop: watch::Receiver<bool>) -> Self {
        while !*stop.borrow() {
            // Failures are expected while faults are injected.
            if self.step().await.is_err() {
                self.totals.refused += 1;
                sleep(Duration::from_millis(200)).await;
            }
        }
        self
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let Some(id) = self.id.clone() else {
            return self.create().await;
        };
        match self.random.random_range(0..3) {
            0 => self.write(&id).await?,
            1 => self.pause(&id).await?,
            _ => self.read(&id).await?,
        }
        sleep(Duration::from_millis(self.random.random_range(0..300))).await;
        Ok(())
    }

    async fn create(&mut self) -> anyhow::Result<()> {
        let spec = json!({
            "templateID": "base", "timeout": 86400, "autoPause": true,
            "autoResume": { "enabled": true }, "metadata": { "number": self.number.to_string() },
        });
        let (status, body) = self.call("POST", "/v2/sandboxes", Some(&spec)).await?;
        if status != StatusCode::CREATED {
            bail!("{status}");
        }
        let created: Value = serde_json::from_slice(&body)?;
        self.id = created["sandboxID"].as_str().map(str::to_owned);
        let token = created["envdAccessToken"].as_str();
        self.token = token.unwrap_or_default().to_owned();
        (self.durable, self.written, self.sent) = (0, 0, 0);
        self.totals.creates += 1;
        Ok(())
    }

    async fn write(&mut self, id: &str) -> anyhow::Result<()> {
        self.sent += 1;
        let body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"number\"\r\n\r\n{}\r\n\
             --{BOUNDARY}--\r\n",
            self.sent
        );
        let request = Request::post(FILE).header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        );
        let (status, _) = self.agent(id, request, body.into()).await?;
        self.check_exists(status)?;
        self.written = self.sent;
        self.totals.writes += 1;
        Ok(())
    }

    async fn pause(&mut self, id: &str) -> anyhow::Result<()> {
        let written = self.written;
        let path = format!("/sandboxes/{id}/pause");
        let (status, _) = self.call("POST", &path, None).await?;
        if status == StatusCode::NO_CONTENT && written > 0 {
            self.durable = written;
            self.totals.pauses += 1;
        }
        Ok(())
    }

    async fn read(&mut self, id: &str) -> anyhow::Result<()> {
        if self.written == 0 {
            return Ok(());
        }
        let (status, body) = self.agent(id, Request::get(FILE), Bytes::new()).await?;
        self.check_exists(status)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let number: u64 = text.trim().parse().unwrap_or(0);
        if number < self.durable || number > self.sent {
            self.violations.push(format!(
                "sandbox {id} answered {text:?}, expected {} to {}",
                self.durable, self.sent
            ));
        }
        // A fall-back to the last pause is allowed.
        self.written = number;
        self.totals.reads += 1;
        Ok(())
    }

    /// Forgets a sandbox that ended without a durable number; one that ended with one is a violation.
    fn check_exists(&mut self, status: StatusCode) -> anyhow::Result<()> {
        if status.is_success() {
            return Ok(());
        }
        // The edge answers 502 for a sandbox that does not exist, and the agent 404 for the file.
        let gone = status == StatusCode::NOT_FOUND || status == StatusCode::BAD_GATEWAY;
        if gone && self.durable == 0 {
            self.id = None;
            self.totals.ended += 1;
        }
        bail!("{status}")
    }

    /// Asserts that the sandbox answers now that no fault is injected.
    pub(super) async fn verify(&mut self) {
        let Some(id) = self.id.clone() else {
            return;
        };
        if self.durable == 0 {
            return;
        }
        self.written = self.written.max(1);
        let deadline = Instant::now() + RECOVERY;
        while let Err(error) = self.read(&id).await {
            if Instant::now() > deadline {
                self.violations.push(format!(
                    "sandbox {id} does not answer with {}: {error:#}",
                    self.durable
                ));
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Kills every sandbox of this task, those of unanswered creates too.
    pub(super) async fn remove(&mut self) -> anyhow::Result<()> {
        let query = format!("/v2/sandboxes?metadata=number%3D{}", self.number);
        let (status, body) = self.call("GET", &query, None).await?;
        anyhow::ensure!(status.is_success(), "the list answered {status}");
        let list: Vec<Value> = serde_json::from_slice(&body)?;
        for sandbox in list {
            let id = sandbox["sandboxID"].as_str().unwrap_or_default();
            let (status, _) = self
                .call("DELETE", &format!("/sandboxes/{id}"), None)
                .await?;
            anyhow::ensure!(status.is_success(), "the kill of {id} answered {status}");
        }
        Ok(())
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        timeout(CALL_TIMEOUT, self.client.call(method, path, body)).await?
    }

    async fn agent(
        &self,
        id: &str,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = request.header("x-access-token", &self.token);
        timeout(CALL_TIMEOUT, self.client.agent(id, request, body)).await?
    }
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.creates += other.creates;
        self.writes += other.writes;
        self.pauses += other.pauses;
        self.reads += other.reads;
        self.refused += other.refused;
        self.ended += other.ended;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "operations: {} creates, {} writes, {} acknowledged pauses, {} reads, {} refused; {} sandboxes ended without \
             a pause",
            self.creates, self.writes, self.pauses, self.reads, self.refused, self.ended
        )
    }
}
