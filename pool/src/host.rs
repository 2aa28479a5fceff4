//! What all drivers share.

use std::sync::{Arc, atomic::AtomicBool};

use pool_api::Event;
use snapshotter::Store;
use tokio::sync::broadcast;
use tracing::warn;

use crate::{
    Config, capacity::Capacity, cause::chain, kept::Kept, registry::Registry, shelf::Shelf,
    template::Templates,
};

/// This host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) templates: Templates,
    pub(crate) kept: Kept,
    pub(crate) registry: Registry,
    pub(crate) events: broadcast::Sender<Event>,
    /// Set by a shutdown: nothing new is made.
    pub(crate) closing: AtomicBool,
    /// Keeps other processes out of the data directory.
    pub(crate) _lock: std::fs::File,
}

/// Work that was not finished because the process is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted: the process is ending")]
pub(crate) struct Interrupted;

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interrupted> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Ok(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Interrupted),
        },
    }
}

impl Host {
    /// Removes the snapshots that nothing needs any more.
    pub(crate) async fn collect(&self) {
        let store = Arc::clone(&self.store);
        if let Ok(Err(error)) = blocking(move || store.collect()).await {
            warn!(
                error = chain(&error),
                "cannot remove snapshots that nothing needs"
            );
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The templates' pins go next, and nothing is to be removed for that.
        self.store.close();
    }
}
