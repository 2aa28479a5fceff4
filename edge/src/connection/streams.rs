//! An HTTP/2 connection: many requests at once, each a task of its own.

use std::{sync::Arc, time::Duration};

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

use super::Server;
use crate::client::{Client, Link};

type Connection = h2::server::Connection<Stream, bytes::Bytes>;

/// Bytes of bodies that one stream may have under way.
const STREAM_WINDOW: u32 = 128 << 10;
/// Bytes of bodies that all streams of a connection may have under way together.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Requests that cannot be understood, in all of a connection's life.
const MALFORMED: u32 = 32;
/// How long a request that is to be reset may take to say so itself.
const RESET_GRACE: Duration = Duration::from_secs(1);
/// How long the client may take to read why it is left.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Served,
    /// The client reset it.
    Cancelled,
}

/// Resets that are forgiven, a tenth of all of them a second.
#[derive(Debug)]
struct Patience {
    left: f64,
    most: f64,
    since: Instant,
}

/// Serves a connection to its end.
pub(super) async fn serve(server: Server, stream: Stream, link: Arc<Link>) {
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let connection = match handshake(stream, Some(options(&server))).await {
        Ok(connection) => connection,
        Err(error) => return debug!(%error, "an HTTP/2 handshake failed"),
    };
    // From here on frames are bounded by their own rules, and time by the wait for a stream.
    link.head_in_hand();
    carry(server, connection, digest).await;
}

fn options(server: &Server) -> H2Options {
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(server.limits.streams)
        .max_header_list_size(u32::try_from(server.limits.head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    options
}

async fn carry(server: Server, mut connection: Connection, digest: Arc<Digest>) {
    let mut closed = server.closed.clone();
    let (mut closing, mut malformed) = (false, 0);
    let mut patience = Patience::new(server.limits.resets);
    // Dropped with the connection, it ends every request that is still under way.
    let mut requests = JoinSet::new();
    loop {
        let idle = tokio::time::sleep(server.limits.idle_connection);
        tokio::select! {
            biased;
            () = told(&mut closed), if !closing => {
                connection.graceful_shutdown();
                closing = true;
            }
            Some(ended) = requests.join_next() => {
                if matches!(ended, Ok(Ended::Cancelled)) && !patience.forgives() {
                    return leave(&server, connection).await;
                }
            }
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    requests.spawn(request(server.clone(), session));
                }
                Ok(Some(H2Accept::Rejected)) => {
                    malformed += 1;
                    if malformed > MALFORMED {
                        return leave(&server, connection).await;
                    }
                }
                Ok(None) => return,
                Err(error) => return debug!(%error, "an HTTP/2 connection broke"),
            },
            () = idle, if requests.is_empty() => return,
        }
    }
}

async fn request(server: Server, session: HttpSession) -> Ended {
    let (client, mut reset) = Client::stream();
    let ending = client.clone();
    let serve = client.scope(async {
        let mut session = ServerSession::new_http2(session);
        session.set_write_timeout(Some(server.limits.idle_stream));
        // A stream is never used for another request.
        drop(server.proxy.process_new_http(session, &server.closed).await);
    });
    tokio::pin!(serve);
    let must_end = tokio::select! {
        () = &mut serve => false,
        () = told(&mut reset) => true,
    };
    if must_end {
        // It ends by itself unless it waits for a client that does not read. Dropping the session resets the stream.
        drop(tokio::time::timeout(RESET_GRACE, serve).await);
    }
    if ending.was_cancelled() {
        Ended::Cancelled
    } else {
        Ended::Served
    }
}

/// Returns once it is true. The sender going away is as good as being told.
async fn told(watched: &mut watch::Receiver<bool>) {
    drop(watched.wait_for(|told| *told).await);
}

/// Tells the client to go away and why, and goes.
async fn leave(server: &Server, mut connection: Connection) {
    server.metrics.sent_away();
    debug!("a client of HTTP/2 was sent away");
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let flush = async { while let Some(Ok(_)) = connection.accept().await {} };
    drop(tokio::time::timeout(FAREWELL, flush).await);
}

// === impl Patience ===

impl Patience {
    fn new(resets: u32) -> Self {
        let most = f64::from(resets);
        Self {
            left: most,
            most,
            since: Instant::now(),
        }
    }

    /// Whether one more reset is borne.
    fn forgives(&mut self) -> bool {
        let again = self.since.elapsed().as_secs_f64() * self.most / 10.0;
        self.since = Instant::now();
        self.left = (self.left + again).min(self.most) - 1.0;
        self.left >= 0.0
    }
}
