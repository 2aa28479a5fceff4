//! `GET /metrics`, on an address of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
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

use super::Metrics;

/// Scrapers at once. One more is closed at once.
const SCRAPERS: usize = 32;
/// How long a scraper may take to ask.
const ASK: Duration = Duration::from_secs(10);
/// Time given to a host that is out of descriptors before it is asked for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers scrapers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, node: Arc<dyn Node>) {
    let mut scrapers = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = scrapers.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if scrapers.len() < SCRAPERS => {
                    scrapers.spawn(scraper(socket, metrics.clone(), node.clone()));
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "could not accept a scraper");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn scraper(socket: TcpStream, metrics: Arc<Metrics>, node: Arc<dyn Node>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (metrics, node) = (metrics.clone(), node.clone());
        async move { Ok::<_, Infallible>(answer(&request, &metrics, &*node).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASK)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a scraper's connection broke");
    }
}

async fn answer(
    request: &Request<Incoming>,
    metrics: &Metrics,
    node: &dyn Node,
) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: Vec<u8>| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        let content = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, content);
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, b"ask for /metrics\n".to_vec());
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, b"GET it\n".to_vec());
    }
    match metrics.render(&node.list().await) {
        Ok(text) => plain(StatusCode::OK, text),
        Err(error) => {
            error!(%error, "could not write the metrics");
            let text = b"the metrics could not be written\n".to_vec();
            plain(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}
