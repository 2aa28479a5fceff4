//! Accepts connections and gives them to Pingora, in the caller's runtime.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use coordinator::Coordinator;
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
    connection::{self, Server},
    listen::{BindError, Door},
    metrics::{self, Metrics},
    proxy::Proxy,
};

/// Time given to a host that is out of descriptors before it is asked for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The front door, not serving yet.
pub struct Edge {
    plain: Door,
    tls: Option<(Door, Arc<Acceptor>)>,
    scrapes: Option<Door>,
    metrics: Arc<Metrics>,
    node: Arc<dyn Node>,
    grace: Duration,
    limits: Limits,
    proxy: Arc<HttpProxy<Proxy>>,
}

/// An edge that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Something cannot be counted.
    #[error("set up the metrics")]
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
    /// Takes the ports. Connections wait in the kernel until [`Edge::run`].
    pub fn bind(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        let scrapes = config.metrics.map(Door::open).transpose()?;
        let plain = Door::open(config.listen)?;
        let tls = match &config.tls {
            Some(tls) => {
                let acceptor = Acceptor::from_server_config(tls.config.clone());
                Some((Door::open(tls.listen)?, Arc::new(acceptor)))
            }
            None => None,
        };
        let (grace, limits) = (config.grace, config.limits);
        let mut proxy = HttpProxy::new(
            Proxy::new(config, node.clone(), coordinator, metrics.clone()),
            Arc::new(ServerConf::default()),
        );
        proxy.handle_init_modules();
        Ok(Self {
            plain,
            tls,
            scrapes,
            metrics,
            node,
            grace,
            limits,
            proxy: Arc::new(proxy),
        })
    }

    /// Where it listens without TLS.
    pub fn address(&self) -> SocketAddr {
        self.plain.address
    }

    /// Where it listens with TLS, if it does.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|(door, _)| door.address)
    }

    /// Where it answers Prometheus, if it does.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.scrapes.as_ref().map(|door| door.address)
    }

    /// Serves until `shutdown` is ready; then takes no new requests and gives those under way some time to end.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        info!(address = %self.address(), tls = ?self.tls_address(), "edge listens");
        let (closing, closed) = watch::channel(false);
        let (proxy, grace) = (self.proxy.clone(), self.grace);
        let mut scrapers = JoinSet::new();
        for listener in self
            .scrapes
            .take()
            .into_iter()
            .flat_map(|door| door.listeners)
        {
            let metrics = self.metrics.clone();
            let listener = TcpListener::from_std(listener)?;
            scrapers.spawn(metrics::serve(listener, metrics, self.node.clone()));
        }
        let mut acceptors = JoinSet::new();
        for accepting in self.accepting(&closed)? {
            acceptors.spawn(accepting);
        }
        shutdown.await;
        closing.send_replace(true);
        proxy.http_cleanup().await;
        let ended = tokio::time::timeout(grace, async {
            while acceptors.join_next().await.is_some() {}
        })
        .await;
        if ended.is_err() {
            warn!("requests under way were cut off");
            acceptors.shutdown().await;
        }
        Ok(())
    }

    fn accepting(
        self,
        closed: &watch::Receiver<bool>,
    ) -> io::Result<Vec<impl Future<Output = ()> + use<>>> {
        let connections = self.limits.connections.min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(connections));
        let server = Server {
            proxy: self.proxy,
            limits: self.limits,
            metrics: self.metrics,
            acceptor: None,
            closed: closed.clone(),
        };
        let plain = self.plain.listeners.into_iter().map(|door| (door, None));
        let tls = self.tls.into_iter().flat_map(|(door, acceptor)| {
            let secured = move |door| (door, Some(acceptor.clone()));
            door.listeners.into_iter().map(secured)
        });
        plain
            .chain(tls)
            .map(|(door, acceptor)| {
                let listener = TcpListener::from_std(door)?;
                let server = Server {
                    acceptor,
                    ..server.clone()
                };
                Ok(accept(listener, server, room.clone()))
            })
            .collect()
    }
}

/// Accepts until the edge closes, then waits for the connections to end. Dropped, it ends them.
async fn accept(listener: TcpListener, server: Server, room: Arc<Semaphore>) {
    let mut closed = server.closed.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // The sender going away is as good as being told.
            _ = closed.wait_for(|closed| *closed) => break,
            // Ended connections are forgotten as they end.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => admit(&mut connections, socket, peer, &server, &room),
            Err(error) => {
                warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(
    connections: &mut JoinSet<()>,
    socket: TcpStream,
    peer: SocketAddr,
    server: &Server,
    room: &Arc<Semaphore>,
) {
    // One too many is closed by being dropped.
    let Ok(seat) = room.clone().try_acquire_owned() else {
        return server.metrics.turned_away();
    };
    let server = server.clone();
    connections.spawn(async move {
        connection::serve(server, socket, peer).await;
        drop(seat);
    });
}
