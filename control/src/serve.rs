//! Control as a whole: opened, reconciled, served.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Router, serve::ListenerExt};
use coordinator::Coordinator;
use pool_api::{Event, Node};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::broadcast,
};
use tracing::{info, warn};

use crate::{
    api,
    config::Config,
    expiry,
    ledger::{Ledger, OpenError},
    reconcile::{self, ReconcileError},
    sampler,
    sandboxes::Sandboxes,
};

/// Control, agreed with its host and ready to serve.
#[derive(Debug)]
pub struct Control {
    sandboxes: Arc<Sandboxes>,
    events: broadcast::Receiver<Event>,
}

/// Control that did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The host.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
}

/// An API that is not served any more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket could not be made.
    #[error("listen on {path}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Serving ended.
    #[error("serve the API")]
    Serve(#[source] io::Error),
}

impl Control {
    /// Opens the ledger and makes it agree with the host. The coordinator knows every sandbox when this returns.
    pub async fn start(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
    ) -> Result<Self, StartError> {
        let ledger = Ledger::open(config.database.clone()).await?;
        // Listened to before the host is asked what it has, so that nothing falls between the two.
        let events = node.events();
        let sandboxes = Sandboxes::new(config, node, coordinator, ledger);
        reconcile::at_start(&sandboxes).await?;
        Ok(Self {
            sandboxes: Arc::new(sandboxes),
            events,
        })
    }

    /// Listens on a Unix socket; one left by an earlier process is replaced. What is returned serves until `shutdown` is
    /// ready, and removes the socket then.
    pub fn serve_unix<S>(
        self,
        path: &Path,
        shutdown: S,
    ) -> Result<impl Future<Output = Result<(), ServeError>> + use<S>, ServeError>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let failed = |source| ServeError::Listen {
            path: path.to_owned(),
            source,
        };
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        info!(socket = %path.display(), "control listens");
        let path = path.to_owned();
        Ok(async move {
            let served = self.serve(|router| {
                axum::serve(listener, router)
                    .with_graceful_shutdown(shutdown)
                    .into_future()
            });
            let served = served.await;
            if let Err(error) = std::fs::remove_file(&path) {
                warn!(socket = %path.display(), %error, "could not remove the socket");
            }
            served
        })
    }

    /// Serves on a TCP listener until `shutdown` is ready.
    pub async fn serve_tcp(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let listener = listener.tap_io(|socket| {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "could not set a socket up");
            }
        });
        self.serve(|router| {
            axum::serve(listener, router)
                .with_graceful_shutdown(shutdown)
                .into_future()
        })
        .await
    }

    async fn serve<F>(self, serving: impl FnOnce(Router) -> F) -> Result<(), ServeError>
    where
        F: Future<Output = io::Result<()>>,
    {
        let Self { sandboxes, events } = self;
        let serving = serving(api::router(sandboxes.clone()));
        let starts = sandboxes.node.events();
        let followed = async {
            tokio::join!(
                reconcile::follow(&sandboxes, events),
                expiry::run(sandboxes.clone()),
                sampler::run(&sandboxes.samples, starts)
            );
        };
        let served = tokio::select! {
            served = serving => served,
            () = followed => Ok(()),
        };
        sandboxes.ledger.close().await;
        served.map_err(ServeError::Serve)
    }
}
