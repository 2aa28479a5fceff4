//! An edge, a fake host, an API, and a client.

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
    Epoch, Node, Origin, SandboxId, SandboxSpec, Secret,
    fake::{Echo, FakeNode},
};
use tempfile::TempDir;
use tokio::{
    net::{TcpStream, UnixListener},
    sync::oneshot,
    task::JoinHandle,
};

/// The longest any test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The domain of a rig with TLS.
pub(crate) const DOMAIN: &str = "e2b.localhost";

pub(crate) struct Rig {
    pub(crate) fake: FakeNode,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) port: u16,
    /// The port with TLS, if there is one.
    pub(crate) tls_port: Option<u16>,
    /// The port that Prometheus asks, if there is one.
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
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(set: impl FnOnce(&mut Config)) -> Self {
        Self::start(None, set)
    }

    /// With TLS as well, for [`DOMAIN`], certified by an authority of its own.
    pub(crate) async fn secured(set: impl FnOnce(&mut Config)) -> Self {
        Self::start(Some("127.0.0.1:0".parse().unwrap()), set)
    }

    fn start(secured: Option<SocketAddr>, set: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (fake, coordinator) = (
            FakeNode::with_templates(&["base"]),
            Arc::new(Coordinator::default()),
        );
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), dir.path().join("api.sock"));
        config.grace = Duration::from_millis(100);
        set(&mut config);
        if let Some(listen) = secured {
            let local = edge::tls::local(&dir.path().join("tls"), DOMAIN).unwrap();
            config.domain = Some(DOMAIN.to_owned());
            config.tls = Some(edge::Tls {
                listen,
                config: local.config,
            });
        }
        let edge = Edge::bind(config, Arc::new(fake.clone()), coordinator.clone()).unwrap();
        let port = edge.address().port();
        let tls_port = edge.tls_address().map(|address| address.port());
        let metrics_port = edge.metrics_address().map(|address| address.port());
        let (stop, stopped) = oneshot::channel::<()>();
        let edge = tokio::spawn(edge.run(async move { drop(stopped.await) }));
        Self {
            fake,
            coordinator,
            port,
            tls_port,
            metrics_port,
            dir,
            stop: Some(stop),
            edge,
        }
    }

    /// Serves an API at the socket the edge expects it at.
    pub(crate) fn serve_api(&self, router: Router) {
        let listener = UnixListener::bind(self.dir.path().join("api.sock")).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// A running sandbox.
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
        let info = self.fake.create(spec).await.unwrap();
        let placement = Placement {
            node: "n1".parse().unwrap(),
            epoch: info.epoch,
            access,
        };
        self.coordinator.publish(&id, placement).await.unwrap();
        id
    }

    /// A sleeping one.
    pub(crate) async fn sleeping(&self, name: &str, access: Access) -> SandboxId {
        let id = self.sandbox(name, access).await;
        self.pause(&id).await;
        id
    }

    pub(crate) async fn pause(&self, id: &SandboxId) {
        let epoch = self.fake.info(id).await.unwrap().epoch;
        self.fake
            .pause(id, epoch, pool_api::SnapshotScope::Full)
            .await
            .unwrap();
    }

    pub(crate) async fn connect(&self) -> http1::SendRequest<Full<Bytes>> {
        connect(self.port).await
    }

    /// A `GET` with these header fields, `host` among them, on a connection of its own.
    pub(crate) async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        get_on(&mut self.connect().await, path, fields).await
    }

    /// What a browser asks ahead of a page's call to a port of a sandbox.
    pub(crate) async fn ask_ahead(&self, port: u16, id: &SandboxId) -> Reply {
        let host = format!("{port}-{id}.example.com");
        let fields = [
            ("host", host.as_str()),
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-access-token"),
        ];
        let mut request = request("/", &fields);
        *request.method_mut() = Method::OPTIONS;
        send(&mut self.connect().await, request).await
    }

    /// A `GET /` at a port of a sandbox.
    pub(crate) async fn visit(&self, port: u16, id: &SandboxId, fields: &[(&str, &str)]) -> Reply {
        let host = format!("{port}-{id}.example.com");
        let fields: Vec<_> = [("host", host.as_str())]
            .into_iter()
            .chain(fields.iter().copied())
            .collect();
        self.get("/", &fields).await
    }

    /// What Prometheus is told.
    pub(crate) async fn scrape(&self) -> String {
        let mut sender = connect(self.metrics_port.unwrap()).await;
        let reply = get_on(&mut sender, "/metrics", &[("host", "x")]).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    /// Ends the edge and gives back how it ended.
    pub(crate) async fn stop(mut self) -> std::io::Result<()> {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, &mut self.edge)
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

pub(crate) fn request(path: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

pub(crate) async fn get_on(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    path: &str,
    fields: &[(&str, &str)],
) -> Reply {
    send(sender, request(path, fields)).await
}

async fn send(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Reply {
    let response = tokio::time::timeout(PATIENCE, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    reply(response).await
}

pub(crate) async fn reply(response: Response<Incoming>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect())
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

/// Anybody may use it, and requests wake it.
pub(crate) fn open() -> Access {
    Access {
        auto_resume: true,
        ..Access::default()
    }
}

pub(crate) fn private(token: &str) -> Access {
    Access {
        traffic_token: Some(Secret::new(token)),
        ..open()
    }
}

pub(crate) fn secured(token: &str) -> Access {
    Access {
        envd_token: Some(Secret::new(token)),
        ..open()
    }
}
