//! HTTP/2: concurrent requests, each served by its own task.

use std::{sync::Arc, time::Duration};

use error_chain::chain;
use h2::Reason;
use pingora::{
    apps::HttpServerApp,
    protocols::{
        Digest, Stream,
        http::{
            ServerSession,
            v2::server::{H2Accept, H2Options, HttpSession, handshake},
        },
    },
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::debug;

use super::context::ConnectionContext;
use crate::client::{Client, ClientConnection};

type Connection = h2::server::Connection<Stream, bytes::Bytes>;

/// Flow-control window of one stream, in bytes.
const STREAM_WINDOW: u32 = 128 << 10;
/// Flow-control window of a connection, in bytes.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Malformed requests that one connection may send.
const MAX_MALFORMED: u32 = 32;
/// The time that a request has to end by itself before its stream is reset.
const RESET_GRACE: Duration = Duration::from_secs(1);
/// The time to flush a GOAWAY.
const GOAWAY_FLUSH: Duration = Duration::from_secs(1);

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    Served,
    /// The client reset it.
    Cancelled,
}

/// A token bucket of stream resets, of which a tenth refills each second.
#[derive(Debug)]
struct ResetBudget {
    tokens: f64,
    capacity: f64,
    refilled_at: Instant,
}

/// Serves requests until the connection ends.
pub(super) async fn serve(
    context: ConnectionContext,
    stream: Stream,
    connection: Arc<ClientConnection>,
) {
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let h2 = match handshake(stream, Some(options(&context))).await {
        Ok(h2) => h2,
        Err(error) => {
            return debug!(error = %chain(error.as_ref()), "failed to complete HTTP/2 handshake");
        }
    };
    // From here on HTTP/2 bounds the size of frames, and the idle timeout their delay.
    connection.head_complete();
    accept_streams(context, h2, digest).await;
}

fn options(context: &ConnectionContext) -> H2Options {
    let limits = &context.limits;
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    options
}

async fn accept_streams(context: ConnectionContext, mut h2: Connection, digest: Arc<Digest>) {
    let mut shutdown = context.shutdown.clone();
    let (mut is_shutting_down, mut malformed) = (false, 0);
    let mut resets = ResetBudget::new(context.limits.resets);
    // Dropping the set with the connection aborts every request in flight.
    let mut requests = JoinSet::new();
    loop {
        let idle = tokio::time::sleep(context.limits.idle_connection);
        tokio::select! {
            biased;
            () = signalled(&mut shutdown), if !is_shutting_down => {
                h2.graceful_shutdown();
                is_shutting_down = true;
            }
            Some(ended) = requests.join_next() => {
                if matches!(ended, Ok(StreamEnd::Cancelled)) && !resets.try_spend() {
                    return send_goaway(&context, h2).await;
                }
            }
            accepted = HttpSession::from_h2_conn(&mut h2, digest.clone()) => match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    requests.spawn(serve_stream(context.clone(), session));
                }
                Ok(Some(H2Accept::Rejected)) => {
                    malformed += 1;
                    if malformed > MAX_MALFORMED {
                        return send_goaway(&context, h2).await;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    return debug!(error = %chain(error.as_ref()), "failed to accept HTTP/2 stream");
                }
            },
            // The first time a client may still send the request that is on its way.
            () = idle, if requests.is_empty() => {
                if is_shutting_down {
                    return;
                }
                h2.graceful_shutdown();
                is_shutting_down = true;
            }
        }
    }
}

async fn serve_stream(context: ConnectionContext, session: HttpSession) -> StreamEnd {
    let (client, mut reset) = Client::stream();
    let served_client = client.clone();
    let serve = served_client.scope(async {
        let mut session = ServerSession::new_http2(session);
        session.set_write_timeout(Some(context.limits.idle_stream));
        // A stream serves one request, so the session is not reused.
        drop(
            context
                .proxy
                .process_new_http(session, &context.shutdown)
                .await,
        );
    });
    tokio::pin!(serve);
    let is_reset = tokio::select! {
        () = &mut serve => false,
        () = signalled(&mut reset) => true,
    };
    if is_reset {
        // The request ends by itself, unless it waits for a client that does not read. Dropping its session then resets
        // the stream.
        drop(tokio::time::timeout(RESET_GRACE, serve).await);
    }
    if client.is_cancelled() {
        StreamEnd::Cancelled
    } else {
        StreamEnd::Served
    }
}

/// Completes once the flag is true or its sender is dropped.
async fn signalled(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|flag| *flag).await);
}

/// Sends GOAWAY (`ENHANCE_YOUR_CALM`) and closes the connection.
async fn send_goaway(context: &ConnectionContext, mut h2: Connection) {
    context.metrics.goaway_sent();
    debug!("GOAWAY sent");
    h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let flush = async { while let Some(Ok(_)) = h2.accept().await {} };
    drop(tokio::time::timeout(GOAWAY_FLUSH, flush).await);
}

// === impl ResetBudget ===

impl ResetBudget {
    fn new(resets: u32) -> Self {
        let capacity = f64::from(resets);
        Self {
            tokens: capacity,
            capacity,
            refilled_at: Instant::now(),
        }
    }

    /// Spends one token. False: the budget is exhausted.
    fn try_spend(&mut self) -> bool {
        let refill = self.refilled_at.elapsed().as_secs_f64() * self.capacity / 10.0;
        self.refilled_at = Instant::now();
        self.tokens = (self.tokens + refill).min(self.capacity) - 1.0;
        self.tokens >= 0.0
    }
}
