//! Control as a whole: opens the ledger, reconciles, serves.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Router, serve::ListenerExt};
use coordinator::Coordinator;
use error_chain::chain;
use pool_api::{Event, Node};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::broadcast,
};
use tracing::{debug, info, warn};

use crate::{
    config::Config,
    data_dir::{DataDir, Identity},
    http,
    ledger::{Ledger, LedgerError, OpenError, Relation},
    service::{ReconcileError, SandboxService},
    time::Micros,
};

/// Control, reconciled with its host and ready to serve.
#[derive(Debug)]
pub struct Control {
    service: Arc<SandboxService>,
    events: broadcast::Receiver<Event>,
}

/// Control did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The identity of the data directory cannot be read or written.
    #[error("failed to read the identity of data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The identity of the ledger cannot be read or written.
    #[error(transparent)]
    Identity(#[from] LedgerError),
    /// The ledger could not be reconciled with the host.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
}

/// Control stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket could not be created.
    #[error("failed to listen on {path}")]
    Listen {
        /// Path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The server failed.
    #[error("failed to serve the API")]
    Serve(#[source] io::Error),
}

/// Checks that the ledger and the data directory belong together, and begins their next generation.
///
/// A ledger that does not belong to the directory removes nothing: its file is copied first, and objects that it does not
/// know are put into quarantine.
async fn identify(ledger: &Ledger, path: &Path, node: &dyn Node) -> Result<(), StartError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let failed = |source| StartError::DataDir {
        path: dir.to_owned(),
        source,
    };
    let data_dir = DataDir::open(dir).map_err(failed)?;
    let identity = data_dir.identity();
    let relation = ledger.relation(identity).await?;
    let has_objects = !node.list().await.is_empty() || !node.retained_snapshots().await.is_empty();
    let problem = match relation {
        Relation::Current => None,
        Relation::Fresh => has_objects.then_some("is new"),
        Relation::Older => Some("is older than its last start"),
        Relation::Foreign => Some("belongs to another directory"),
    };
    if let Some(problem) = problem {
        if relation != Relation::Fresh {
            let now = Micros::now().seconds();
            let copy = format!("control.db.before-{}-{now}", identity.generation + 1);
            ledger.copy_to(&data_dir.path().join(copy)).await?;
        }
        warn!(
            "ledger {} {problem}: sandboxes of data directory {} that it does not know are in quarantine; take them back \
             with `catnap ledger rebuild`",
            path.display(),
            data_dir.path().display()
        );
    }
    let next = Identity {
        generation: identity.generation + 1,
        ..identity.clone()
    };
    // The ledger first: a crash between the two leaves a ledger that is ahead, which is no problem.
    ledger.set_identity(&next).await?;
    data_dir.save(&next).map_err(failed)
}

impl Control {
    /// Opens the ledger and reconciles it with the host. On return the coordinator has the placement of every sandbox.
    pub async fn start(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
    ) -> Result<Self, StartError> {
        let ledger = Ledger::open(config.database.clone()).await?;
        identify(&ledger, &config.database, &*node).await?;
        // Subscribed before the host lists its sandboxes, so that no change is missed between the two.
        let events = node.events();
        let service = SandboxService::new(config, node, coordinator, ledger);
        service.reconcile().await?;
        Ok(Self {
            service: Arc::new(service),
            events,
        })
    }

    /// Listens on a Unix socket, replacing a stale one. The returned future serves until `shutdown` resolves and then
    /// removes the socket.
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
        info!(socket = %path.display(), "control API listening");
        let path = path.to_owned();
        Ok(async move {
            let served = self.serve(|router| {
                axum::serve(listener, router)
                    .with_graceful_shutdown(shutdown)
                    .into_future()
            });
            let served = served.await;
            if let Err(error) = std::fs::remove_file(&path) {
                warn!(socket = %path.display(), error = %chain(&error), "failed to remove socket");
            }
            served
        })
    }

    /// Serves on a TCP listener until `shutdown` resolves.
    pub async fn serve_tcp(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let listener = listener.tap_io(|socket| {
            if let Err(error) = socket.set_nodelay(true) {
                debug!(error = %chain(&error), "failed to set TCP_NODELAY");
            }
        });
        self.serve(|router| {
            axum::serve(listener, router)
                .with_graceful_shutdown(shutdown)
                .into_future()
        })
        .await
    }

    async fn serve<F>(self, serve: impl FnOnce(Router) -> F) -> Result<(), ServeError>
    where
        F: Future<Output = io::Result<()>>,
    {
        let Self { service, events } = self;
        let serving = serve(http::router(service.clone()));
        let metrics_events = service.events();
        let background = async {
            tokio::join!(
                service.follow(events),
                service.clone().run_expiry(),
                service.clone().run_quarantine(),
                service.metrics().run(metrics_events)
            );
        };
        let served = tokio::select! {
            served = serving => served,
            () = background => Ok(()),
        };
        service.close().await;
        served.map_err(ServeError::Serve)
    }
}
