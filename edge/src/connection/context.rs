//! The state that all client connections share.

use std::sync::Arc;

use pingora::{listeners::tls::Acceptor, proxy::HttpProxy};
use tokio::sync::watch;

use crate::{config::Limits, metrics::Metrics, proxy::Proxy};

/// The state that all connections of a listener share.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub(crate) proxy: Arc<HttpProxy<Proxy>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    /// The TLS acceptor; `None` for plain HTTP.
    pub(crate) acceptor: Option<Arc<Acceptor>>,
    /// True once the edge shuts down.
    pub(crate) shutdown: watch::Receiver<bool>,
}
