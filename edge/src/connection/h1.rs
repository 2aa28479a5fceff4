//! HTTP/1.1: one request after the other.

use std::{sync::Arc, time::Duration};

use pingora::{
    apps::HttpServerApp,
    protocols::{Stream, http::ServerSession},
};

use super::context::ConnectionContext;
use crate::client::{Client, ClientConnection};

/// The time to drain the rest of a request body, so that the connection is reusable.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves requests until the connection ends.
pub(super) async fn serve(
    context: ConnectionContext,
    stream: Stream,
    connection: Arc<ClientConnection>,
) {
    let keepalive = context.limits.idle_connection.as_secs().max(1);
    let client = Client::Connection(connection.clone());
    let serve = async {
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(keepalive));
        loop {
            // Set for each request: a reused session keeps only its keep-alive time.
            session.set_read_timeout(Some(context.limits.idle_stream));
            session.set_write_timeout(Some(context.limits.idle_stream));
            session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
            let served = context
                .proxy
                .process_new_http(session, &context.shutdown)
                .await;
            let Some((stream, settings)) = served.map(|served| served.consume()) else {
                return;
            };
            connection.expect_head();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    };
    client.scope(serve).await;
}
