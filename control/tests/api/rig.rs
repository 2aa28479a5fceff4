//! Control on a loopback port, and a client.

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

/// The longest any test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const KEY: &str = "e2b_0000000000000000000000000000000000000000";

pub(crate) struct Rig {
    pub(crate) fake: FakeNode,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) dir: TempDir,
    port: u16,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

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

    /// Control over a host and a data directory that may have a past.
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

    /// Control dies with no word; what it kept stays.
    pub(crate) async fn crash(self) -> (FakeNode, TempDir) {
        self.served.abort();
        assert!(self.served.await.unwrap_err().is_cancelled());
        (self.fake, self.dir)
    }

    /// Control ends as it should.
    pub(crate) async fn end(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.served)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::try_from(method).unwrap())
            .uri(path)
            .header("host", "x");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request))
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

    /// With the key, and a body if it is not null.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let fields = [("x-api-key", KEY), ("content-type", "application/json")];
        self.raw(
            method,
            path,
            if body.is_empty() {
                &fields[..1]
            } else {
                &fields
            },
            &body,
        )
        .await
    }

    /// As [`Rig::call`], with header fields.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Value,
        fields: &[(&str, &str)],
    ) -> Reply {
        let mut all = vec![("x-api-key", KEY), ("content-type", "application/json")];
        all.extend_from_slice(fields);
        self.raw(method, path, &all, &body.to_string()).await
    }

    /// A connection whose requests are written byte by byte.
    pub(crate) async fn socket(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Returns once the host keeps exactly so many snapshots.
    pub(crate) async fn until_kept(&self, count: usize) {
        let wait = async {
            while self.fake.retained_snapshots().await.len() != count {
                tokio::task::yield_now().await;
            }
        };
        let kept = tokio::time::timeout(PATIENCE, wait).await;
        assert!(kept.is_ok(), "{:?}", self.fake.retained_snapshots().await);
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, Value::Null).await
    }

    /// A sandbox made with this body; its id.
    pub(crate) async fn create(&self, body: Value) -> String {
        let made = self.call("POST", "/v2/sandboxes", body).await.expect(201);
        made["sandboxID"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn placement(&self, id: &str) -> Option<Placement> {
        self.coordinator.locate(&sandbox(id)).await.unwrap()
    }

    /// Polls the sandbox until the reply satisfies `done`.
    pub(crate) async fn until(&self, id: &str, done: impl Fn(&Reply) -> bool) -> Reply {
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
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }
}

pub(crate) fn sandbox(id: &str) -> SandboxId {
    id.parse().unwrap()
}

/// What is said of a sandbox that is not there.
pub(crate) fn missing(id: &str) -> String {
    format!("Sandbox \"{id}\" doesn't exist or you don't have access to it")
}

/// Microseconds from `startedAt` to `endAt`.
pub(crate) fn lifetime(seen: &Value) -> i64 {
    let time = |name: &str| {
        seen[name]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_microsecond()
    };
    time("endAt") - time("startedAt")
}

impl Reply {
    /// The body as JSON, if the status is this.
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

    /// The message of an error with this status.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        let body = self.expect(status);
        assert_eq!(body["code"], status);
        body["message"].as_str().unwrap().to_owned()
    }
}
