//! A gateway with a fake host and an API, and plain HTTP/1.1 clients.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use coordinator::{Access, Coordinator, Placement};
use edge::{Config, Edge};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use pool_api::{
    Epoch, Node, Origin, SandboxId, SandboxSpec, Secret, SnapshotScope,
    fake::{Echo, FakeNode},
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixListener},
    sync::oneshot,
    task::JoinHandle,
};

/// The timeout of every wait in a test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The domain of a gateway with TLS.
pub(crate) const DOMAIN: &str = "e2b.localhost";

pub(crate) struct Rig {
    pub(crate) node: FakeNode,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) port: u16,
    pub(crate) tls_port: Option<u16>,
    pub(crate) metrics_port: Option<u16>,
    pub(crate) dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    edge: JoinHandle<std::io::Result<()>>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with_config(|_| {}).await
    }

    pub(crate) async fn with_config(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start(None, configure)
    }

    /// Starts a gateway with a TLS listener for [`DOMAIN`] and a certificate authority of its own.
    pub(crate) async fn with_tls(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start(Some("127.0.0.1:0".parse().unwrap()), configure)
    }

    fn start(tls_listen: Option<SocketAddr>, configure: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, coordinator) = (
            FakeNode::with_templates(&["base"]),
            Arc::new(Coordinator::default()),
        );
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), dir.path().join("api.sock"));
        config.shutdown_timeout = Duration::from_millis(100);
        configure(&mut config);
        if let Some(listen) = tls_listen {
            let local = edge::tls::local(&dir.path().join("tls"), DOMAIN).unwrap();
            config.domain = Some(DOMAIN.to_owned());
            config.tls = Some(edge::Tls {
                listen,
                config: local.config,
            });
        }
        let edge = Edge::bind(config, Arc::new(node.clone()), coordinator.clone()).unwrap();
        let port = edge.address().port();
        let tls_port = edge.tls_address().map(|address| address.port());
        let metrics_port = edge.metrics_address().map(|address| address.port());
        let (stop, stopped) = oneshot::channel::<()>();
        let edge = tokio::spawn(edge.run(async move { drop(stopped.await) }));
        Self {
            node,
            coordinator,
            port,
            tls_port,
            metrics_port,
            dir,
            stop: Some(stop),
            edge,
        }
    }

    /// Serves an API at the gateway's API socket.
    pub(crate) fn serve_api(&self, router: Router) {
        let listener = UnixListener::bind(self.dir.path().join("api.sock")).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// Creates a running sandbox.
    pub(crate) async fn sandbox(&self, name: &str, access: Access) -> SandboxId {
        let id: SandboxId = name.parse().unwrap();
        let spec = SandboxSpec {
            id: id.clone(),
            epoch: Epoch(1),
            origin: Origin::Template("base".parse().unwrap()),
            template: "base".parse().unwrap(),
            idle: None,
            env: std::collections::BTreeMap::new(),
            access_token: access.envd_token.clone(),
        };
        let info = self.node.create(spec).await.unwrap();
        let placement = Placement {
            node: "n1".parse().unwrap(),
            epoch: info.epoch,
            access,
        };
        self.coordinator.publish(&id, placement).unwrap();
        id
    }

    pub(crate) async fn paused_sandbox(&self, name: &str, access: Access) -> SandboxId {
        let id = self.sandbox(name, access).await;
        self.pause(&id).await;
        id
    }

    pub(crate) async fn pause(&self, id: &SandboxId) {
        let epoch = self.node.info(id).await.unwrap().epoch;
        self.node
            .pause(id, epoch, SnapshotScope::Full)
            .await
            .unwrap();
    }

    pub(crate) async fn connect(&self) -> http1::SendRequest<Full<Bytes>> {
        connect(self.port).await
    }

    /// Opens a connection and sends raw bytes.
    pub(crate) async fn send_raw(&self, text: &str) -> TcpStream {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        socket.write_all(text.as_bytes()).await.unwrap();
        socket
    }

    /// Sends a `GET` with these headers, `host` among them, on a new connection.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        get_on(&mut self.connect().await, path, headers).await
    }

    /// Sends a `GET /` to a port of a sandbox on a new connection.
    pub(crate) async fn get_port(
        &self,
        port: u16,
        id: &SandboxId,
        headers: &[(&str, &str)],
    ) -> Reply {
        let host = format!("{port}-{id}.example.com");
        let headers: Vec<_> = [("host", host.as_str())]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        self.get("/", &headers).await
    }

    /// Sends a browser's CORS preflight to a port of a sandbox.
    pub(crate) async fn preflight(&self, port: u16, id: &SandboxId) -> Reply {
        let host = format!("{port}-{id}.example.com");
        let headers = [
            ("host", host.as_str()),
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-access-token"),
        ];
        let mut request = request("/", &headers);
        *request.method_mut() = Method::OPTIONS;
        send(&mut self.connect().await, request).await
    }

    /// Returns the metrics.
    pub(crate) async fn scrape(&self) -> String {
        let mut sender = connect(self.metrics_port.unwrap()).await;
        let reply = get_on(&mut sender, "/metrics", &[("host", "x")]).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    pub(crate) async fn wait_for_leases(&self, count: u64) {
        let waited = tokio::time::timeout(TIMEOUT, self.node.wait_for_leases(count));
        waited.await.unwrap();
    }

    pub(crate) async fn wait_for_entering(&self, count: u64) {
        let waited = tokio::time::timeout(TIMEOUT, self.node.wait_for_entering(count));
        waited.await.unwrap();
    }

    /// Shuts the gateway down and returns its result.
    pub(crate) async fn stop(mut self) -> std::io::Result<()> {
        drop(self.stop.take());
        tokio::time::timeout(TIMEOUT, &mut self.edge)
            .await
            .unwrap()
            .unwrap()
    }
}

pub(crate) async fn connect(port: u16) -> http1::SendRequest<Full<Bytes>> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    sender
}

pub(crate) fn request(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

pub(crate) async fn get_on(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    path: &str,
    headers: &[(&str, &str)],
) -> Reply {
    send(sender, request(path, headers)).await
}

async fn send(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Reply {
    let response = tokio::time::timeout(TIMEOUT, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    reply(response).await
}

pub(crate) async fn reply(response: Response<Incoming>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(TIMEOUT, body.collect())
        .await
        .unwrap()
        .unwrap()
        .to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}

impl Reply {
    /// Parses the response of the fake guest.
    pub(crate) fn echo(&self) -> Echo {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Every request may use the sandbox and wakes it.
pub(crate) fn public() -> Access {
    Access {
        auto_resume: true,
        ..Access::default()
    }
}

pub(crate) fn with_traffic_token(token: &str) -> Access {
    Access {
        traffic_token: Some(Secret::new(token)),
        ..public()
    }
}

pub(crate) fn with_agent_token(token: &str) -> Access {
    Access {
        envd_token: Some(Secret::new(token)),
        ..public()
    }
}
