//! Accepts connections and serves them in the caller's runtime.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use coordinator::Coordinator;
use error_chain::chain;
use pingora::{
    apps::HttpServerApp, listeners::tls::Acceptor, proxy::HttpProxy,
    server::configuration::ServerConf,
};
use pool_api::Node;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    config::{Config, Limits},
    connection::{self, ConnectionContext},
    limiter::ConcurrencyLimiter,
    listen::{BindError, BoundListener},
    metrics::{Metrics, wakes},
    proxy::Proxy,
    scrape,
};

/// Delay after a failed accept, for example for lack of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A bound edge that does not serve yet.
pub struct Edge {
    plain: BoundListener,
    tls: Option<(BoundListener, Arc<Acceptor>)>,
    scrape: Option<BoundListener>,
    metrics: Arc<Metrics>,
    node: Arc<dyn Node>,
    shutdown_timeout: Duration,
    limits: Limits,
    proxy: Arc<HttpProxy<Proxy>>,
}

/// An edge that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A metric cannot be registered.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("address", &self.address())
            .field("tls_address", &self.tls_address())
            .finish_non_exhaustive()
    }
}

impl Edge {
    /// Listens on the configured addresses. The kernel queues connections until [`Edge::run`].
    pub fn bind(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        if let Some(panics) = &config.panics {
            metrics.add_panics(panics)?;
        }
        let scrape = config.metrics.map(BoundListener::bind).transpose()?;
        let plain = BoundListener::bind(config.listen)?;
        let tls = match &config.tls {
            Some(tls) => {
                let acceptor = Acceptor::from_server_config(tls.config.clone());
                Some((BoundListener::bind(tls.listen)?, Arc::new(acceptor)))
            }
            None => None,
        };
        let (shutdown_timeout, limits) = (config.shutdown_timeout, config.limits);
        let mut proxy = HttpProxy::new(
            Proxy::new(config, node.clone(), coordinator, metrics.clone()),
            Arc::new(ServerConf::default()),
        );
        proxy.handle_init_modules();
        Ok(Self {
            plain,
            tls,
            scrape,
            metrics,
            node,
            shutdown_timeout,
            limits,
            proxy: Arc::new(proxy),
        })
    }

    /// Returns the address for plain HTTP.
    pub fn address(&self) -> SocketAddr {
        self.plain.address
    }

    /// Returns the address for TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|(listener, _)| listener.address)
    }

    /// Returns the address of the Prometheus endpoint.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.scrape.as_ref().map(|listener| listener.address)
    }

    /// Serves until `shutdown` completes. Then it accepts no more requests, and aborts those in flight after a timeout.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        info!(address = %self.address(), tls = ?self.tls_address(), "edge started");
        let (shutdown_sender, shutdown_receiver) = watch::channel(false);
        let (proxy, shutdown_timeout) = (self.proxy.clone(), self.shutdown_timeout);
        // Dropping the set at the end aborts its tasks.
        let mut background = JoinSet::new();
        background.spawn(wakes::count(self.node.events(), self.metrics.clone()));
        let scrape = self.scrape.take();
        for socket in scrape.into_iter().flat_map(|listener| listener.sockets) {
            let listener = TcpListener::from_std(socket)?;
            background.spawn(scrape::serve(
                listener,
                self.metrics.clone(),
                self.node.clone(),
            ));
        }
        let mut acceptors = JoinSet::new();
        for acceptor in self.acceptors(&shutdown_receiver)? {
            acceptors.spawn(acceptor);
        }
        shutdown.await;
        shutdown_sender.send_replace(true);
        proxy.http_cleanup().await;
        let ended = tokio::time::timeout(shutdown_timeout, async {
            while acceptors.join_next().await.is_some() {}
        })
        .await;
        if ended.is_err() {
            warn!("requests aborted at shutdown");
            acceptors.shutdown().await;
        }
        Ok(())
    }

    /// Creates the accept loop of each socket.
    fn acceptors(
        self,
        shutdown: &watch::Receiver<bool>,
    ) -> io::Result<Vec<impl Future<Output = ()> + use<>>> {
        let connections = self.limits.connections.min(Semaphore::MAX_PERMITS);
        let limit = ConnectionLimit {
            all: Arc::new(Semaphore::new(connections)),
            by_address: ConcurrencyLimiter::new(self.limits.connections_per_address),
        };
        let context = ConnectionContext {
            proxy: self.proxy,
            limits: self.limits,
            metrics: self.metrics,
            acceptor: None,
            shutdown: shutdown.clone(),
        };
        let plain = self.plain.sockets.into_iter().map(|socket| (socket, None));
        let tls = self.tls.into_iter().flat_map(|(listener, acceptor)| {
            let with_acceptor = move |socket| (socket, Some(acceptor.clone()));
            listener.sockets.into_iter().map(with_acceptor)
        });
        plain
            .chain(tls)
            .map(|(socket, acceptor)| {
                let listener = TcpListener::from_std(socket)?;
                let context = ConnectionContext {
                    acceptor,
                    ..context.clone()
                };
                Ok(accept(listener, context, limit.clone()))
            })
            .collect()
    }
}

/// The limits of open connections.
#[derive(Debug, Clone)]
struct ConnectionLimit {
    all: Arc<Semaphore>,
    by_address: ConcurrencyLimiter<IpAddr>,
}

/// Accepts connections until the shutdown, then waits for them to end. Dropping the future aborts them.
async fn accept(listener: TcpListener, context: ConnectionContext, limit: ConnectionLimit) {
    let mut shutdown = context.shutdown.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // An error means that the sender is dropped, which is a shutdown too.
            _ = shutdown.wait_for(|shutdown| *shutdown) => break,
            // Removes ended connections from the set.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                spawn_connection(&mut connections, socket, peer, &context, &limit);
            }
            Err(error) => {
                warn!(error = %chain(&error), "failed to accept connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn spawn_connection(
    connections: &mut JoinSet<()>,
    socket: TcpStream,
    peer: SocketAddr,
    context: &ConnectionContext,
    limit: &ConnectionLimit,
) {
    // Dropping the socket closes a connection beyond the limit.
    let Ok(slot) = limit.by_address.acquire(&peer.ip()) else {
        return context.metrics.connection_refused();
    };
    let Ok(permit) = limit.all.clone().try_acquire_owned() else {
        return context.metrics.connection_refused();
    };
    let context = context.clone();
    connections.spawn(async move {
        connection::serve(context, socket, peer).await;
        drop((permit, slot));
    });
}
