//! The HTTP server of a fake guest.
//!
//! | path | answer |
//! | --- | --- |
//! | `/echo` | the request's body, chunk by chunk as it comes |
//! | `/hang` | `hello`, without an end |
//! | `/flood` | zeroes, without an end |
//! | `/redirect?to=..` | 302 to that location, with two cookies |
//! | `/ws` | a WebSocket that echoes its messages |
//! | `/process.Process/Start` | a Connect stream of a process that prints its request and exits with 3 |
//! | anything else | the request, as JSON: [`Echo`] |

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{WebSocketUpgrade, ws::WebSocket},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
    routing::{any, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{StreamExt, stream};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{net::UnixStream, task::JoinSet};

use super::lock;
use crate::{DialError, Port, SandboxInfo};

/// A request as a fake guest received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The sandbox.
    pub sandbox: String,
    /// Its epoch.
    pub epoch: u64,
    /// The port.
    pub port: u16,
    /// The number of the connection, counted from 0 in this process.
    pub connection: u64,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: String,
}

#[derive(Debug)]
pub(super) struct Guest {
    sandbox: String,
    epoch: u64,
    /// `None` once the guest has ended.
    connections: Mutex<Option<JoinSet<()>>>,
}

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
struct Connection {
    sandbox: String,
    epoch: u64,
    port: u16,
    number: u64,
}

impl Guest {
    pub(super) fn new(info: &SandboxInfo) -> Self {
        let connections = Mutex::new(Some(JoinSet::new()));
        Self {
            sandbox: info.id.to_string(),
            epoch: info.epoch.0,
            connections,
        }
    }

    pub(super) fn end(&self) {
        // Dropping the set aborts every connection.
        drop(lock(&self.connections).take());
    }

    pub(super) fn connect(&self, port: Port) -> Result<UnixStream, DialError> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|source| DialError::Failed { port, source })?;
        let connection = Connection {
            sandbox: self.sandbox.clone(),
            epoch: self.epoch,
            port: port.get(),
            number: CONNECTIONS.fetch_add(1, Ordering::SeqCst),
        };
        let service = TowerToHyperService::new(router(connection));
        let serve = http1::Builder::new()
            .serve_connection(TokioIo::new(theirs), service)
            .with_upgrades();
        match lock(&self.connections).as_mut() {
            Some(connections) => connections.spawn(async move { drop(serve.await) }),
            None => return Err(DialError::Gone),
        };
        Ok(ours)
    }
}

fn router(connection: Connection) -> Router {
    Router::new()
        .route("/echo", any(|body: Body| async { Response::new(body) }))
        .route("/hang", any(hang))
        .route("/flood", any(flood))
        .route("/redirect", any(redirect))
        .route(
            "/ws",
            any(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo_messages) }),
        )
        .route("/process.Process/Start", post(start))
        .fallback(report)
        .layer(Extension(connection))
}

async fn hang() -> Response {
    let first =
        stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from_static(b"hello")) });
    Response::new(Body::from_stream(first.chain(stream::pending())))
}

async fn flood() -> Response {
    let piece = Bytes::from_static(&[0; 1 << 14]);
    let pieces = stream::repeat_with(move || Ok::<_, std::convert::Infallible>(piece.clone()));
    Response::new(Body::from_stream(pieces))
}

async fn redirect(uri: Uri) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let to = uri.query().and_then(|query| query.strip_prefix("to="));
    if let Some(Ok(to)) = to.map(HeaderValue::from_str) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    for cookie in ["a=b; Path=/; HttpOnly", "c=d"] {
        let cookie = HeaderValue::from_static(cookie);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

async fn echo_messages(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Prints the request's message on stdout and `done` on stderr.
async fn start(body: Bytes) -> Response {
    let message = body.get(5..).unwrap_or_default();
    let data = |stream: &str, bytes: &[u8]| json!({ "event": { "data": { stream: STANDARD.encode(bytes) } } });
    let events = [
        (0, json!({ "event": { "start": { "pid": 7 } } })),
        (0, data("stdout", message)),
        (0, data("stderr", b"done")),
        (
            0,
            json!({ "event": { "end": { "exitCode": 3, "exited": true, "status": "exit status 3" } } }),
        ),
        (2, json!({})),
    ];
    let frames = events.map(|(flags, event)| {
        let text = event.to_string();
        let length = u32::try_from(text.len()).unwrap_or(0).to_be_bytes();
        let frame = [&[flags], length.as_slice(), text.as_bytes()].concat();
        Ok::<_, std::convert::Infallible>(frame)
    });
    let mut response = Response::new(Body::from_stream(stream::iter(frames)));
    let content = HeaderValue::from_static("application/connect+json");
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    response
}

async fn report(
    Extension(connection): Extension<Connection>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Echo> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Json(Echo {
        sandbox: connection.sandbox,
        epoch: connection.epoch,
        port: connection.port,
        connection: connection.number,
        method: method.to_string(),
        target: uri.to_string(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
            .collect(),
        body: text(&body),
    })
}
