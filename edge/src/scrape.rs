//! Serves `GET /metrics` on an address of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use error_chain::chain;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pool_api::Node;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tracing::{debug, error, warn};

use crate::metrics::Metrics;

/// The most concurrent connections. Further ones are closed at once.
const MAX_CONNECTIONS: usize = 32;
/// The time for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay after a failed accept, for example for lack of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves scrapes until it is dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, node: Arc<dyn Node>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(serve_connection(socket, metrics.clone(), node.clone()));
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(error = %chain(&error), "failed to accept scrape connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
}

async fn serve_connection(socket: TcpStream, metrics: Arc<Metrics>, node: Arc<dyn Node>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (metrics, node) = (metrics.clone(), node.clone());
        async move { Ok::<_, Infallible>(respond(&request, &metrics, &*node).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        debug!(error = %chain(&error), "failed to serve scrape connection");
    }
}

async fn respond(
    request: &Request<Incoming>,
    metrics: &Metrics,
    node: &dyn Node,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return text(
            StatusCode::NOT_FOUND,
            b"not found; the metrics are at /metrics\n".to_vec(),
        );
    }
    if request.method() != Method::GET {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            b"method not allowed; use GET\n".to_vec(),
        );
    }
    match metrics.render(&node.list().await) {
        Ok(metrics) => text(StatusCode::OK, metrics),
        Err(error) => {
            error!(error = %chain(&error), "failed to render metrics");
            let body = b"failed to render the metrics\n".to_vec();
            text(StatusCode::INTERNAL_SERVER_ERROR, body)
        }
    }
}

fn text(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}
