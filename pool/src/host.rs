//! The resources of this host that every driver shares.

use std::{
    fs::File,
    sync::{Arc, atomic::AtomicBool},
};

use pool_api::Event;
use snapshotter::Store;
use tokio::sync::{Semaphore, broadcast};
use tracing::warn;

use crate::{
    Config, blank_pool::BlankPool, blocking::blocking, broken::BrokenObjects, capacity::Capacity,
    eviction::Evictions, start_permits::StartPermits,
};

/// This host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) evictions: Evictions,
    pub(crate) capacity: Arc<Capacity>,
    /// Bounds the starts under way.
    pub(crate) start_permits: StartPermits,
    /// Bounds the snapshots under way.
    pub(crate) capture_permits: Semaphore,
    pub(crate) blanks: Arc<BlankPool>,
    pub(crate) broken: BrokenObjects,
    pub(crate) events: broadcast::Sender<Event>,
    /// A shutdown has begun: no sandbox is created.
    pub(crate) closing: AtomicBool,
    /// Keeps other processes out of the data directory.
    pub(crate) _lock: File,
}

impl Host {
    /// Removes the snapshots that nothing references.
    pub(crate) async fn collect(&self) {
        let store = Arc::clone(&self.store);
        if let Ok(Err(error)) = blocking(move || store.collect()).await {
            warn!(error = %error_chain::chain(&error), "failed to remove unreferenced snapshots");
        }
    }
}
