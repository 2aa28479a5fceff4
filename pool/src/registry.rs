//! Which sandboxes are here.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use pool_api::SandboxId;

use crate::driver::Handle;

/// From a sandbox's name to its driver.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    handles: Mutex<HashMap<SandboxId, Arc<Handle>>>,
}

impl Registry {
    /// The driver of a sandbox.
    pub(crate) fn get(&self, id: &SandboxId) -> Option<Arc<Handle>> {
        self.handles.lock().get(id).map(Arc::clone)
    }

    /// Adds what `make` makes unless the name is taken.
    pub(crate) fn insert_with<E>(
        &self,
        id: &SandboxId,
        taken: impl FnOnce() -> E,
        make: impl FnOnce() -> Result<Arc<Handle>, E>,
    ) -> Result<Arc<Handle>, E> {
        match self.handles.lock().entry(id.clone()) {
            Entry::Occupied(_) => Err(taken()),
            Entry::Vacant(place) => Ok(Arc::clone(place.insert(make()?))),
        }
    }

    /// Forgets a sandbox.
    pub(crate) fn remove(&self, id: &SandboxId) {
        self.handles.lock().remove(id);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.handles.lock().values().map(Arc::clone).collect()
    }
}
