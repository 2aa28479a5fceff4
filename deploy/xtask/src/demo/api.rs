//! The gateway, called: its API, and sandboxes behind it.

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

/// How long any answer may take.
const ANSWER: Duration = Duration::from_secs(300);
/// How long a gateway that takes requests may take to say so.
const SOON: Duration = Duration::from_secs(2);
/// How often something is asked for that is not announced.
const AGAIN: Duration = Duration::from_millis(100);
/// The label of what the demo makes.
const LABEL: (&str, &str) = ("made-by", "xtask-demo");

/// A gateway.
#[derive(Debug, Clone)]
pub(super) struct Api {
    agent: Agent,
    listen: SocketAddr,
    key: String,
}

/// What a sandbox answered.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) status: u16,
    pub(super) body: String,
    /// What the gateway says of its own part.
    pub(super) timing: String,
}

/// An answer of the API that says no.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gateway answered {}: {}", self.status, self.text)
    }
}

impl std::error::Error for Refused {}

fn is_conflict(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.status == StatusCode::CONFLICT)
}

impl Api {
    /// The gateway at `listen`.
    pub(super) fn new(listen: SocketAddr, key: String) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER))
            // Each request is what a new client would send.
            .max_idle_connections(0)
            .build();
        Self {
            agent: agent.into(),
            listen,
            key,
        }
    }

    /// Whether the gateway takes requests.
    pub(super) fn is_up(listen: SocketAddr) -> bool {
        let config = Agent::config_builder().timeout_global(Some(SOON));
        let agent = Agent::from(config.build());
        let answer = agent.get(format!("http://{listen}/health")).call();
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// Makes a sandbox that falls asleep after `idle` seconds of no use and is woken by requests.
    pub(super) fn create(&self, template: &str, idle: u64) -> Result<String> {
        let body = json!({
            "templateID": template,
            "timeout": 3600,
            "autoPause": true,
            "autoResume": { "enabled": true },
            "idleTimeout": idle,
            "metadata": { LABEL.0: LABEL.1 },
        });
        let made = self
            .ask("POST", "/v2/sandboxes", Some(&body))
            .context("create a sandbox")?;
        id(&made)
    }

    /// Whether a sandbox is `running` or `paused`.
    pub(super) fn state(&self, id: &str) -> Result<String> {
        let found = self
            .ask("GET", &format!("/sandboxes/{id}"), None)
            .context("look at the sandbox")?;
        text(&found, "state")
    }

    /// Pauses a sandbox, or waits for a pause that is under way, or finds that it is paused.
    pub(super) fn pause(&self, id: &str) -> Result<()> {
        match self.ask("POST", &format!("/sandboxes/{id}/pause"), None) {
            Err(error) if is_conflict(&error) => Ok(()),
            answered => answered.map(drop).context("pause the sandbox"),
        }
    }

    /// Forks a sandbox, and gives the names of its children.
    pub(super) fn fork(&self, id_of_origin: &str, count: usize) -> Result<Vec<String>> {
        let path = format!("/sandboxes/{id_of_origin}/fork");
        let body = json!({ "count": count, "timeout": 3600 });
        let made = self
            .ask("POST", &path, Some(&body))
            .context("fork the sandbox")?;
        let outcomes = made
            .as_array()
            .context("understand the answer to the fork")?;
        let mut children = Vec::new();
        for outcome in outcomes {
            match outcome.get("sandbox") {
                Some(child) => children.push(id(child)?),
                None => bail!("fork the sandbox: {outcome}"),
            }
        }
        Ok(children)
    }

    /// Kills what this demo or an earlier one made; how many there were.
    pub(super) fn kill_earlier(&self) -> Result<usize> {
        let mut killed = 0;
        loop {
            let path = format!("/v2/sandboxes?metadata={}%3D{}", LABEL.0, LABEL.1);
            let found = self.ask("GET", &path, None).context("list sandboxes")?;
            let found = found.as_array().context("understand a list of sandboxes")?;
            if found.is_empty() {
                return Ok(killed);
            }
            for sandbox in found {
                let id = id(sandbox)?;
                self.ask("DELETE", &format!("/sandboxes/{id}"), None)
                    .with_context(|| format!("kill sandbox {id}"))?;
                killed += 1;
            }
        }
    }

    /// A plain request to a port of a sandbox.
    pub(super) fn visit(&self, id: &str, port: u16) -> Result<Visit> {
        let mut answer = self
            .agent
            .get(format!("http://{}/", self.listen))
            .header("host", format!("{port}-{id}.localhost"))
            .call()
            .with_context(|| format!("call port {port} of sandbox {id}"))?;
        let body = answer
            .body_mut()
            .read_to_string()
            .with_context(|| format!("read what sandbox {id} answers"))?;
        let timing = answer
            .headers()
            .get("server-timing")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        Ok(Visit {
            status: answer.status().as_u16(),
            body,
            timing,
        })
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.listen))
            .header("x-api-key", &self.key)
            .header("content-type", "application/json");
        let sent = match body {
            Some(body) => self.agent.run(request.body(serde_json::to_vec(body)?)?),
            None => self.agent.run(request.body(())?),
        };
        let mut answer = sent.context("reach the gateway")?;
        let text = answer
            .body_mut()
            .read_to_string()
            .context("read the gateway's answer")?;
        if !answer.status().is_success() {
            let status = answer.status();
            return Err(Refused { status, text }.into());
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).context("understand the gateway's answer")
    }
}

/// Asks again until `done` says so.
pub(super) fn until(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        if done()? {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        thread::sleep(AGAIN);
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
        .with_context(|| format!("find {member} in what the gateway answered"))
}

#[cfg(test)]
mod test {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread::JoinHandle,
    };

    use super::*;

    /// Answers one request with `answer`, and gives what was sent.
    fn once(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut sent = Vec::new();
            let mut buffer = [0; 4096];
            while !sent.windows(4).any(|four| four == b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                sent.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(sent).unwrap()
        });
        (address, served)
    }

    #[test]
    fn a_sandbox_is_named_by_the_host_alone() {
        let (address, served) = once(
            "HTTP/1.1 502 Bad Gateway\r\nserver-timing: wake;dur=1.5\r\ncontent-length: 3\r\n\r\nno\n",
        );
        let visit = Api::new(address, "key".to_owned())
            .visit("iabc", 8000)
            .unwrap();
        assert_eq!(
            (visit.status, visit.body.as_str(), visit.timing.as_str()),
            (502, "no\n", "wake;dur=1.5")
        );
        let sent = served.join().unwrap().to_lowercase();
        assert_eq!(
            sent.matches("host:").count(),
            1,
            "one host and no other: {sent}"
        );
        assert!(sent.contains("host: 8000-iabc.localhost\r\n") && !sent.contains("key"));
    }

    #[test]
    fn a_refusal_is_told_in_the_gateways_words() {
        let (address, served) =
            once("HTTP/1.1 409 Conflict\r\ncontent-length: 17\r\n\r\n{\"message\":\"no\"}\n");
        let error = Api::new(address, "e2b_key".to_owned())
            .create("base", 5)
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("409 Conflict: {\"message\":\"no\"}"),
            "{error:#}"
        );
        assert!(
            served
                .join()
                .unwrap()
                .to_lowercase()
                .contains("x-api-key: e2b_key")
        );
    }

    #[test]
    fn a_gateway_that_does_not_answer_is_not_up() {
        let (address, served) = once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        assert!(Api::is_up(address));
        assert!(served.join().unwrap().starts_with("GET /health HTTP/1.1"));
        assert!(!Api::is_up(address));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!Api::is_up(silent.local_addr().unwrap()));
    }

    #[test]
    fn waiting_has_an_end() {
        let error = until("nothing", Duration::ZERO, || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s for nothing");
        let mut asked = 0;
        until("a second time", Duration::from_secs(60), || {
            asked += 1;
            Ok(asked == 2)
        })
        .unwrap();
    }
}
