//! A sandbox, called through the gateway.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::{Gateway, Reply, TIMEOUT, wait_until};

#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    token: String,
}

/// A running command in a guest. Dropping it closes the output stream, and the command continues.
#[derive(Debug)]
pub(crate) struct RunningCommand {
    /// Its process ID in the guest.
    pub(crate) pid: u64,
    stream: Response,
    bytes: Vec<u8>,
}

/// The result of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandResult {
    pub(crate) code: i64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    /// The port of the probe.
    pub(crate) const PROBE_PORT: u16 = 8080;
    const AGENT_PORT: u16 = 49983;

    /// Reads ID and token from the response of a create, resume or fork.
    pub(crate) fn new(created: &Value) -> Self {
        let text = |name: &str| created[name].as_str().unwrap_or_default().to_owned();
        Self {
            id: text("sandboxID"),
            token: text("envdAccessToken"),
        }
    }

    /// Returns a handle of this sandbox that sends the token of another.
    pub(crate) fn with_token_of(&self, other: &Sandbox) -> Self {
        Self {
            id: self.id.clone(),
            token: other.token.clone(),
        }
    }

    /// Builds a request to a port, addressed by the `Host` header.
    pub(crate) fn request(
        &self,
        gateway: &Gateway,
        method: Method,
        port: u16,
        path: &str,
    ) -> RequestBuilder {
        let request = gateway
            .http
            .request(method, format!("{}{path}", gateway.url()));
        request.header("host", format!("{port}-{}.example.com", self.id))
    }

    /// Sends a GET request to the probe. Returns connection errors.
    pub(crate) async fn try_get(&self, gateway: &Gateway, path: &str) -> reqwest::Result<Reply> {
        let request = self.request(gateway, Method::GET, Self::PROBE_PORT, path);
        Reply::read(request.send().await?).await
    }

    /// Sends a GET request to the probe. Panics on a connection error.
    pub(crate) async fn get(&self, gateway: &Gateway, path: &str) -> Reply {
        self.try_get(gateway, path).await.unwrap()
    }

    fn agent_request(&self, gateway: &Gateway, method: Method, path: &str) -> RequestBuilder {
        self.request(gateway, method, Self::AGENT_PORT, path)
            .header("X-Access-Token", &self.token)
    }

    /// Writes a file in the guest.
    pub(crate) async fn write(
        &self,
        gateway: &Gateway,
        path: &str,
        bytes: impl Into<reqwest::Body>,
    ) {
        let request = self
            .agent_request(gateway, Method::POST, &format!("/files?path={path}"))
            .header("content-type", "application/octet-stream")
            .body(bytes);
        Reply::read(request.send().await.unwrap())
            .await
            .unwrap()
            .ok();
    }

    /// Reads a file in the guest.
    pub(crate) async fn read(&self, gateway: &Gateway, path: &str) -> Reply {
        let request = self.agent_request(gateway, Method::GET, &format!("/files?path={path}"));
        Reply::read(request.send().await.unwrap()).await.unwrap()
    }

    /// Starts a command, and waits for its start event.
    pub(crate) async fn start(
        &self,
        gateway: &Gateway,
        user: &str,
        command: &[&str],
    ) -> RunningCommand {
        let message = json!({
            "process": { "cmd": command[0], "args": &command[1..] },
            "stdin": false,
        });
        let message = message.to_string();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message.as_bytes());
        let request = self
            .agent_request(gateway, Method::POST, "/process.Process/Start")
            .header(
                "authorization",
                format!("Basic {}", STANDARD.encode(format!("{user}:"))),
            )
            .header("content-type", "application/connect+json")
            .header("connect-protocol-version", "1")
            .body(body);
        let stream = request.send().await.unwrap();
        assert_eq!(stream.status(), 200);
        let mut running = RunningCommand {
            pid: 0,
            stream,
            bytes: Vec::new(),
        };
        let first = running.event().await.unwrap();
        running.pid = first["event"]["start"]["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("{first}"));
        running
    }

    /// Runs a command until it exits.
    pub(crate) async fn run(
        &self,
        gateway: &Gateway,
        user: &str,
        command: &[&str],
    ) -> CommandResult {
        self.start(gateway, user, command).await.wait().await
    }

    /// Uploads the probe and makes it executable.
    async fn upload_probe(&self, gateway: &Gateway) {
        self.write(
            gateway,
            "/home/user/probe",
            fs::read(&gateway.artefacts.probe).unwrap(),
        )
        .await;
        let chmod = self
            .run(gateway, "user", &["/bin/chmod", "755", "/home/user/probe"])
            .await;
        assert_eq!(chmod.code, 0, "{chmod:?}");
    }

    /// Uploads the probe, starts its server, and waits until it responds.
    pub(crate) async fn start_probe(&self, gateway: &Gateway) {
        self.upload_probe(gateway).await;
        let port = Self::PROBE_PORT.to_string();
        self.start(gateway, "user", &["/home/user/probe", "serve", &port])
            .await;
        wait_until("the probe responds", async || {
            let reply = self.get(gateway, "/count").await;
            if reply.status == 200 {
                Ok(())
            } else {
                Err(reply.body)
            }
        })
        .await;
    }

    /// Returns the status and body of `GET /sandboxes/<id>`.
    pub(crate) async fn info(&self, gateway: &Gateway) -> (u16, Value) {
        gateway
            .api(Method::GET, &format!("/sandboxes/{}", self.id), None)
            .await
    }

    /// Returns `running`, `paused`, or an empty string if the sandbox does not exist.
    pub(crate) async fn state(&self, gateway: &Gateway) -> String {
        let (_, info) = self.info(gateway).await;
        info["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the API reports a state.
    pub(crate) async fn wait_for_state(&self, gateway: &Gateway, state: &str) {
        wait_until(&format!("{} is {state:?}", self.id), async || {
            let found = self.state(gateway).await;
            if found == state { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Pauses the sandbox.
    pub(crate) async fn pause(&self, gateway: &Gateway) {
        let path = format!("/sandboxes/{}/pause", self.id);
        let (status, body) = gateway.api(Method::POST, &path, None).await;
        assert_eq!(status, 204, "{body}");
        assert_eq!(self.state(gateway).await, "paused");
    }

    /// Kills the sandbox.
    pub(crate) async fn kill(&self, gateway: &Gateway) {
        let (status, body) = gateway
            .api(Method::DELETE, &format!("/sandboxes/{}", self.id), None)
            .await;
        assert_eq!(status, 204, "{body}");
    }

    /// Forks the sandbox.
    pub(crate) async fn fork(&self, gateway: &Gateway, count: usize) -> Vec<Sandbox> {
        let body = json!({ "count": count, "timeout": 3600 });
        let path = format!("/sandboxes/{}/fork", self.id);
        let (status, outcomes) = gateway.api(Method::POST, &path, Some(body)).await;
        assert_eq!(status, 201, "{outcomes}");
        let outcomes = outcomes.as_array().unwrap();
        assert_eq!(outcomes.len(), count);
        let child = |outcome: &Value| {
            assert!(outcome["sandbox"].is_object(), "{outcome}");
            Self::new(&outcome["sandbox"])
        };
        outcomes.iter().map(child).collect()
    }
}

impl RunningCommand {
    /// Reads the next event. Returns `None` at the end of the stream.
    async fn event(&mut self) -> Option<Value> {
        loop {
            if let Some((head, rest)) = self.bytes.split_first_chunk::<5>() {
                let [flags, length @ ..] = *head;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
                if rest.len() >= length {
                    let message: Value = serde_json::from_slice(&rest[..length]).unwrap();
                    self.bytes.drain(..5 + length);
                    if flags == 2 {
                        assert!(message["error"].is_null(), "{message}");
                        return None;
                    }
                    return Some(message);
                }
            }
            let chunk = tokio::time::timeout(TIMEOUT, self.stream.chunk())
                .await
                .unwrap();
            self.bytes.extend(
                chunk
                    .unwrap()
                    .expect("the stream ended without an end message"),
            );
        }
    }

    /// Collects the output until the command exits.
    pub(crate) async fn wait(mut self) -> CommandResult {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(message) = self.event().await {
            let event = &message["event"];
            for (name, into) in [("stdout", &mut stdout), ("stderr", &mut stderr)] {
                if let Some(text) = event["data"][name].as_str() {
                    into.extend(STANDARD.decode(text).unwrap());
                }
            }
            if event["end"].is_object() {
                return CommandResult {
                    code: event["end"]["exitCode"].as_i64().unwrap_or(0),
                    stdout: String::from_utf8(stdout).unwrap(),
                    stderr: String::from_utf8(stderr).unwrap(),
                };
            }
        }
        panic!("the stream ended before the command exited");
    }
}
