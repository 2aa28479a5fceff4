//! A client of the gateway, for its API and for its sandboxes.

use std::{
    fmt,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::{
    Agent,
    http::{Request, StatusCode},
};

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Timeout of a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between polls.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The metadata entry of the sandboxes of the demo.
const METADATA: (&str, &str) = ("made-by", "xtask-demo");

/// A connection to the gateway.
#[derive(Debug, Clone)]
pub(super) struct Api {
    agent: Agent,
    listen: SocketAddr,
    key: String,
}

/// The response of a sandbox.
#[derive(Debug)]
pub(super) struct SandboxResponse {
    pub(super) status: u16,
    pub(super) body: String,
    /// The `Server-Timing` header.
    pub(super) server_timing: String,
}

/// An error response of the API.
#[derive(Debug)]
struct ApiError {
    status: StatusCode,
    text: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gateway returned {}: {}", self.status, self.text)
    }
}

impl std::error::Error for ApiError {}

fn is_conflict(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ApiError>()
        .is_some_and(|error| error.status == StatusCode::CONFLICT)
}

impl Api {
    /// Creates a client of the gateway at `listen`.
    pub(super) fn new(listen: SocketAddr, key: String) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            // Each request opens a connection, like one of a new client.
            .max_idle_connections(0)
            .build();
        Self {
            agent: agent.into(),
            listen,
            key,
        }
    }

    /// Returns whether the gateway serves requests.
    pub(super) fn is_up(listen: SocketAddr) -> bool {
        let config = Agent::config_builder().timeout_global(Some(HEALTH_TIMEOUT));
        let agent = Agent::from(config.build());
        let response = agent.get(format!("http://{listen}/health")).call();
        response.is_ok_and(|response| response.status() == 200)
    }

    /// Creates a sandbox that pauses after `idle` seconds without requests and that requests wake.
    pub(super) fn create(&self, template: &str, idle: u64) -> Result<String> {
        let body = json!({
            "templateID": template,
            "timeout": 3600,
            "autoPause": true,
            "autoResume": { "enabled": true },
            "idleTimeout": idle,
            "metadata": { METADATA.0: METADATA.1 },
        });
        let created = self
            .call("POST", "/v2/sandboxes", Some(&body))
            .context("failed to create a sandbox")?;
        id(&created)
    }

    /// Returns the state of a sandbox: `running` or `paused`.
    pub(super) fn state(&self, id: &str) -> Result<String> {
        let found = self
            .call("GET", &format!("/sandboxes/{id}"), None)
            .context("failed to get the sandbox")?;
        text(&found, "state")
    }

    /// Pauses a sandbox or waits for its current pause. A paused sandbox is no error.
    pub(super) fn pause(&self, id: &str) -> Result<()> {
        match self.call("POST", &format!("/sandboxes/{id}/pause"), None) {
            Err(error) if is_conflict(&error) => Ok(()),
            result => result.map(drop).context("failed to pause the sandbox"),
        }
    }

    /// Forks a sandbox, and returns the ids of its children.
    pub(super) fn fork(&self, origin: &str, count: usize) -> Result<Vec<String>> {
        let path = format!("/sandboxes/{origin}/fork");
        let body = json!({ "count": count, "timeout": 3600 });
        let created = self
            .call("POST", &path, Some(&body))
            .context("failed to fork the sandbox")?;
        let outcomes = created
            .as_array()
            .context("failed to parse the response to the fork")?;
        let mut children = Vec::new();
        for outcome in outcomes {
            match outcome.get("sandbox") {
                Some(child) => children.push(id(child)?),
                None => bail!("failed to fork the sandbox: {outcome}"),
            }
        }
        Ok(children)
    }

    /// Kills the sandboxes of this and of earlier demos, and returns their number.
    pub(super) fn kill_demo_sandboxes(&self) -> Result<usize> {
        let mut killed = 0;
        loop {
            let path = format!("/v2/sandboxes?metadata={}%3D{}", METADATA.0, METADATA.1);
            let found = self
                .call("GET", &path, None)
                .context("failed to list sandboxes")?;
            let found = found
                .as_array()
                .context("failed to parse the list of sandboxes")?;
            if found.is_empty() {
                return Ok(killed);
            }
            for sandbox in found {
                let id = id(sandbox)?;
                self.call("DELETE", &format!("/sandboxes/{id}"), None)
                    .with_context(|| format!("failed to kill sandbox {id}"))?;
                killed += 1;
            }
        }
    }

    /// Sends a request to a port of a sandbox.
    pub(super) fn get_from_sandbox(&self, id: &str, port: u16) -> Result<SandboxResponse> {
        let mut response = self
            .agent
            .get(format!("http://{}/", self.listen))
            .header("host", format!("{port}-{id}.localhost"))
            .call()
            .with_context(|| format!("failed to send a request to port {port} of sandbox {id}"))?;
        let body = response
            .body_mut()
            .read_to_string()
            .with_context(|| format!("failed to read the response of sandbox {id}"))?;
        let server_timing = response
            .headers()
            .get("server-timing")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        Ok(SandboxResponse {
            status: response.status().as_u16(),
            body,
            server_timing,
        })
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.listen))
            .header("x-api-key", &self.key)
            .header("content-type", "application/json");
        let sent = match body {
            Some(body) => self.agent.run(request.body(serde_json::to_vec(body)?)?),
            None => self.agent.run(request.body(())?),
        };
        let mut response = sent.context("failed to send the request to the gateway")?;
        let text = response
            .body_mut()
            .read_to_string()
            .context("failed to read the response of the gateway")?;
        if !response.status().is_success() {
            let status = response.status();
            return Err(ApiError { status, text }.into());
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).context("failed to parse the response of the gateway")
    }
}

/// Polls until `done` returns true; `condition` describes it in the error.
pub(super) fn poll_until(
    condition: &str,
    timeout: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        if done()? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "timed out after {} s waiting for {condition}",
                timeout.as_secs()
            );
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn id(sandbox: &Value) -> Result<String> {
    text(sandbox, "sandboxID")
}

fn text(value: &Value, member: &str) -> Result<String> {
    value
        .get(member)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("failed to find {member} in the response of the gateway"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread::JoinHandle,
    };

    use super::*;

    /// Answers one request with `response`. The thread returns the request.
    fn serve_one(response: &'static str) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut sent = Vec::new();
            let mut buffer = [0; 4096];
            while !sent.windows(4).any(|four| four == b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                sent.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(response.as_bytes()).unwrap();
            String::from_utf8(sent).unwrap()
        });
        (address, server)
    }

    #[test]
    fn sandbox_request_has_one_host_header_and_no_key() {
        let (address, server) = serve_one(
            "HTTP/1.1 502 Bad Gateway\r\nserver-timing: wake;dur=1.5\r\ncontent-length: 3\r\n\r\nno\n",
        );
        let response = Api::new(address, "key".to_owned())
            .get_from_sandbox("iabc", 8000)
            .unwrap();
        assert_eq!(
            (
                response.status,
                response.body.as_str(),
                response.server_timing.as_str()
            ),
            (502, "no\n", "wake;dur=1.5")
        );
        let sent = server.join().unwrap().to_lowercase();
        assert_eq!(sent.matches("host:").count(), 1, "{sent}");
        assert!(sent.contains("host: 8000-iabc.localhost\r\n") && !sent.contains("key"));
    }

    #[test]
    fn error_contains_status_and_body_of_the_gateway() {
        let (address, server) =
            serve_one("HTTP/1.1 409 Conflict\r\ncontent-length: 17\r\n\r\n{\"message\":\"no\"}\n");
        let error = Api::new(address, "e2b_key".to_owned())
            .create("base", 5)
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("409 Conflict: {\"message\":\"no\"}"),
            "{error:#}"
        );
        assert!(
            server
                .join()
                .unwrap()
                .to_lowercase()
                .contains("x-api-key: e2b_key")
        );
    }

    #[test]
    fn only_a_gateway_that_answers_in_time_is_up() {
        let (address, server) = serve_one("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        assert!(Api::is_up(address));
        assert!(server.join().unwrap().starts_with("GET /health HTTP/1.1"));
        assert!(!Api::is_up(address));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!Api::is_up(silent.local_addr().unwrap()));
    }

    #[test]
    fn poll_until_times_out() {
        let error = poll_until("nothing", Duration::ZERO, || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "timed out after 0 s waiting for nothing");
        let mut polls = 0;
        poll_until("a second poll", Duration::from_secs(60), || {
            polls += 1;
            Ok(polls == 2)
        })
        .unwrap();
    }
}
