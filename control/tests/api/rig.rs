//! Control on a loopback port, and a client for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use control::{Config, Control, ServeError};
use coordinator::{Coordinator, Placement};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pool_api::{Node, SandboxId, Secret, fake::FakeNode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// The longest wait of any test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
pub(crate) const KEY: &str = "e2b_0000000000000000000000000000000000000000";

/// Control over a fake host.
pub(crate) struct Rig {
    pub(crate) fake: FakeNode,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) dir: TempDir,
    port: u16,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::over(
            FakeNode::with_templates(&["base"]),
            tempfile::tempdir().unwrap(),
        )
        .await
    }

    /// Starts control over an existing host and data directory.
    pub(crate) async fn over(fake: FakeNode, dir: TempDir) -> Self {
        let coordinator = Arc::new(Coordinator::default());
        let config = Config::new(
            dir.path().join("control.db"),
            Secret::new(KEY),
            "n1".parse().unwrap(),
        );
        let control = Control::start(config, Arc::new(fake.clone()), coordinator.clone())
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(control.serve_tcp(listener, async move { drop(stopped.await) }));
        Self {
            fake,
            coordinator,
            dir,
            port,
            stop,
            served,
        }
    }

    /// Aborts control, as a crash does. Returns the host and the data directory.
    pub(crate) async fn crash(self) -> (FakeNode, TempDir) {
        self.served.abort();
        assert!(self.served.await.unwrap_err().is_cancelled());
        (self.fake, self.dir)
    }

    /// Shuts control down.
    pub(crate) async fn shut_down(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(TIMEOUT, self.served)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::try_from(method).unwrap())
            .uri(path)
            .header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = tokio::time::timeout(TIMEOUT, sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text,
        }
    }

    /// Sends a request with the key, and with a body unless it is null.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = [("x-api-key", KEY), ("content-type", "application/json")];
        self.raw(
            method,
            path,
            if body.is_empty() {
                &headers[..1]
            } else {
                &headers
            },
            &body,
        )
        .await
    }

    /// Sends a request with the key, a body and more headers.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut all = vec![("x-api-key", KEY), ("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.raw(method, path, &all, &body.to_string()).await
    }

    /// Connects for raw requests.
    pub(crate) async fn socket(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Waits until the host retains exactly this number of snapshots.
    pub(crate) async fn wait_for_retained(&self, count: usize) {
        let wait = async {
            while self.fake.retained_snapshots().await.len() != count {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(TIMEOUT, wait).await;
        assert!(
            reached.is_ok(),
            "{:?}",
            self.fake.retained_snapshots().await
        );
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, Value::Null).await
    }

    /// Creates a sandbox and returns its id.
    pub(crate) async fn create(&self, body: Value) -> String {
        let created = self.call("POST", "/v2/sandboxes", body).await.expect(201);
        created["sandboxID"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn placement(&self, id: &str) -> Option<Placement> {
        self.coordinator.locate(&sandbox(id))
    }

    /// Polls the sandbox until the reply satisfies `done`.
    pub(crate) async fn poll_until(&self, id: &str, done: impl Fn(&Reply) -> bool) -> Reply {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let wait = async {
            loop {
                ticks.tick().await;
                let reply = self.get(&format!("/sandboxes/{id}")).await;
                if done(&reply) {
                    return reply;
                }
            }
        };
        tokio::time::timeout(TIMEOUT, wait).await.unwrap()
    }
}

pub(crate) fn sandbox(id: &str) -> SandboxId {
    id.parse().unwrap()
}

/// The message about an unknown sandbox.
pub(crate) fn missing(id: &str) -> String {
    format!("Sandbox \"{id}\" doesn't exist or you don't have access to it")
}

/// Microseconds from `startedAt` to `endAt`.
pub(crate) fn lifetime(sandbox: &Value) -> i64 {
    let time = |name: &str| {
        sandbox[name]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_microsecond()
    };
    time("endAt") - time("startedAt")
}

impl Reply {
    /// Asserts the status and returns the body.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if status == 204 {
            assert_eq!(self.text, "");
            return Value::Null;
        }
        assert_eq!(
            self.headers["content-type"],
            "application/json; charset=utf-8"
        );
        serde_json::from_str(&self.text).unwrap()
    }

    /// Asserts the status of an error and returns its message.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        let body = self.expect(status);
        assert_eq!(body["code"], status);
        body["message"].as_str().unwrap().to_owned()
    }
}
