//! Accepts connections and gives them to Pingora, in the caller's runtime.

use std::{fmt, io, net::SocketAddr, os::fd::AsRawFd, sync::Arc, time::Duration};

use coordinator::Coordinator;
use pingora::{
    apps::{HttpServerApp, ServerApp},
    protocols::{GetSocketDigest, SocketDigest, l4::stream::Stream},
    proxy::HttpProxy,
    server::configuration::ServerConf,
};
use pool_api::Node;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{client::Client, config::Config, proxy::Proxy};

/// Time given to a host that is out of descriptors before it is asked for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The front door: one listener, not serving yet.
pub struct Edge {
    listener: std::net::TcpListener,
    address: SocketAddr,
    grace: Duration,
    proxy: Arc<HttpProxy<Proxy>>,
}

/// An edge that cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Edge {
    /// Takes the port. Connections wait in the kernel until [`Edge::run`].
    pub fn bind(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<dyn Coordinator>,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError {
            address: config.listen,
            source,
        };
        let listener = std::net::TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let grace = config.grace;
        let mut proxy = HttpProxy::new(
            Proxy::new(config, node, coordinator),
            Arc::new(ServerConf::default()),
        );
        proxy.handle_init_modules();
        Ok(Self {
            listener,
            address,
            grace,
            proxy: Arc::new(proxy),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready; then takes no new requests and gives those under way some time to end.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let (closing, closed) = watch::channel(false);
        let mut connections = JoinSet::new();
        info!(address = %self.address, "edge listens");
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                // Ended connections are forgotten as they end.
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        let (proxy, closed) = (self.proxy.clone(), closed.clone());
                        connections.spawn(serve(proxy, socket, peer, closed));
                    }
                    Err(error) => {
                        warn!(%error, "could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        closing.send_replace(true);
        self.proxy.http_cleanup().await;
        let ended = tokio::time::timeout(self.grace, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
        if ended.is_err() {
            warn!(
                requests = connections.len(),
                "requests under way were cut off"
            );
            connections.shutdown().await;
        }
        Ok(())
    }
}

async fn serve(
    proxy: Arc<HttpProxy<Proxy>>,
    socket: TcpStream,
    peer: SocketAddr,
    closed: watch::Receiver<bool>,
) {
    let prepared = socket.set_nodelay(true).and_then(|()| Client::new(&socket));
    let client = match prepared {
        Ok(client) => client,
        Err(error) => return warn!(%error, %peer, "could not set up a connection"),
    };
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    if digest.peer_addr.set(Some(peer.into())).is_err() {
        return warn!(%peer, "could not note a peer");
    }
    let mut stream = Stream::from(socket);
    stream.set_socket_digest(digest);
    client
        .scope(async { proxy.process_new(Box::new(stream), &closed).await })
        .await;
}
