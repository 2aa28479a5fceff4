//! A sandbox, as its user calls it.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::fs;

use super::{Gateway, PATIENCE, Reply, until};

/// A sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    token: String,
}

/// A command under way in a guest. Dropping it lets go of its output, not of the command.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its number in the guest.
    pub(crate) pid: u64,
    stream: Response,
    bytes: Vec<u8>,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    /// The port of the probe.
    pub(crate) const PROBE: u16 = 8080;
    const AGENT: u16 = 49983;

    /// What a create, resume or fork answered.
    pub(crate) fn new(made: &Value) -> Self {
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Self {
            id: text("sandboxID"),
            token: text("envdAccessToken"),
        }
    }

    /// This sandbox, called with the token of another.
    pub(crate) fn with_token_of(&self, other: &Sandbox) -> Self {
        Self {
            id: self.id.clone(),
            token: other.token.clone(),
        }
    }

    /// A request to a port, by the name of the host.
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

    /// A plain request to the probe; an error is one of the connection.
    pub(crate) async fn try_get(&self, gateway: &Gateway, path: &str) -> reqwest::Result<Reply> {
        let request = self.request(gateway, Method::GET, Self::PROBE, path);
        Reply::of(request.send().await?).await
    }

    /// A plain request to the probe.
    pub(crate) async fn get(&self, gateway: &Gateway, path: &str) -> Reply {
        self.try_get(gateway, path).await.unwrap()
    }

    fn agent(&self, gateway: &Gateway, method: Method, path: &str) -> RequestBuilder {
        self.request(gateway, method, Self::AGENT, path)
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
            .agent(gateway, Method::POST, &format!("/files?path={path}"))
            .header("content-type", "application/octet-stream")
            .body(bytes);
        Reply::of(request.send().await.unwrap()).await.unwrap().ok();
    }

    /// Reads a file in the guest.
    pub(crate) async fn read(&self, gateway: &Gateway, path: &str) -> Reply {
        let request = self.agent(gateway, Method::GET, &format!("/files?path={path}"));
        Reply::of(request.send().await.unwrap()).await.unwrap()
    }

    /// Starts a command, and returns when it has started.
    pub(crate) async fn start(&self, gateway: &Gateway, user: &str, command: &[&str]) -> Running {
        let message = json!({
            "process": { "cmd": command[0], "args": &command[1..] },
            "stdin": false,
        });
        let message = message.to_string();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message.as_bytes());
        let request = self
            .agent(gateway, Method::POST, "/process.Process/Start")
            .header(
                "authorization",
                format!("Basic {}", STANDARD.encode(format!("{user}:"))),
            )
            .header("content-type", "application/connect+json")
            .header("connect-protocol-version", "1")
            .body(body);
        let stream = request.send().await.unwrap();
        assert_eq!(stream.status(), 200);
        let mut running = Running {
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

    /// Runs a command to its end.
    pub(crate) async fn run(&self, gateway: &Gateway, user: &str, command: &[&str]) -> Ended {
        self.start(gateway, user, command).await.end().await
    }

    /// Puts the probe into the guest, where it can be run.
    pub(crate) async fn put_probe(&self, gateway: &Gateway) {
        self.write(
            gateway,
            "/home/user/probe",
            fs::read(&gateway.built.probe).unwrap(),
        )
        .await;
        let made = self
            .run(gateway, "user", &["/bin/chmod", "755", "/home/user/probe"])
            .await;
        assert_eq!(made.code, 0, "{made:?}");
    }

    /// Puts the probe into the guest, starts it, and waits until it answers.
    pub(crate) async fn run_probe(&self, gateway: &Gateway) {
        self.put_probe(gateway).await;
        let port = Self::PROBE.to_string();
        self.start(gateway, "user", &["/home/user/probe", "serve", &port])
            .await;
        until("the probe answers", async || {
            let reply = self.get(gateway, "/count").await;
            if reply.status == 200 {
                Ok(())
            } else {
                Err(reply.body)
            }
        })
        .await;
    }

    /// All that the API says of it, and the status.
    pub(crate) async fn detail(&self, gateway: &Gateway) -> (u16, Value) {
        gateway
            .api(Method::GET, &format!("/sandboxes/{}", self.id), None)
            .await
    }

    /// `running`, `paused`, or nothing when it is not there.
    pub(crate) async fn state(&self, gateway: &Gateway) -> String {
        let (_, detail) = self.detail(gateway).await;
        detail["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the API says so.
    pub(crate) async fn becomes(&self, gateway: &Gateway, state: &str) {
        until(&format!("{} is {state:?}", self.id), async || {
            let now = self.state(gateway).await;
            if now == state { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Pauses it by the API.
    pub(crate) async fn pause(&self, gateway: &Gateway) {
        let path = format!("/sandboxes/{}/pause", self.id);
        let (status, answer) = gateway.api(Method::POST, &path, None).await;
        assert_eq!(status, 204, "{answer}");
        assert_eq!(self.state(gateway).await, "paused");
    }

    /// Kills it by the API.
    pub(crate) async fn kill(&self, gateway: &Gateway) {
        let (status, answer) = gateway
            .api(Method::DELETE, &format!("/sandboxes/{}", self.id), None)
            .await;
        assert_eq!(status, 204, "{answer}");
    }

    /// Forks it.
    pub(crate) async fn fork(&self, gateway: &Gateway, count: usize) -> Vec<Sandbox> {
        let body = json!({ "count": count, "timeout": 3600 });
        let path = format!("/sandboxes/{}/fork", self.id);
        let (status, made) = gateway.api(Method::POST, &path, Some(body)).await;
        assert_eq!(status, 201, "{made}");
        let made = made.as_array().unwrap();
        assert_eq!(made.len(), count);
        let child = |outcome: &Value| {
            assert!(outcome["sandbox"].is_object(), "{outcome}");
            Self::new(&outcome["sandbox"])
        };
        made.iter().map(child).collect()
    }
}

impl Running {
    /// The next event; `None` at the end of the stream.
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
            let chunk = tokio::time::timeout(PATIENCE, self.stream.chunk())
                .await
                .unwrap();
            self.bytes
                .extend(chunk.unwrap().expect("the stream ends with a message"));
        }
    }

    /// Follows it to its end.
    pub(crate) async fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(message) = self.event().await {
            let event = &message["event"];
            for (name, into) in [("stdout", &mut stdout), ("stderr", &mut stderr)] {
                if let Some(text) = event["data"][name].as_str() {
                    into.extend(STANDARD.decode(text).unwrap());
                }
            }
            if event["end"].is_object() {
                return Ended {
                    code: event["end"]["exitCode"].as_i64().unwrap_or(0),
                    stdout: String::from_utf8(stdout).unwrap(),
                    stderr: String::from_utf8(stderr).unwrap(),
                };
            }
        }
        panic!("the stream ended before the command did");
    }
}
