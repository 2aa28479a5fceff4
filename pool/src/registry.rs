//! The sandboxes of this host, by id.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;
use pool_api::SandboxId;

/// A map from ids to values of type `T`. Clones share it.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    entries: Arc<Mutex<HashMap<SandboxId, Arc<T>>>>,
}

/// Keeps an id taken until dropped.
#[must_use = "the id is free as soon as the registration is dropped"]
pub(crate) struct Registration(Option<Box<dyn FnOnce() + Send>>);

// === impl Registry ===

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            entries: Arc::default(),
        }
    }
}

impl<T: Send + Sync + 'static> Registry<T> {
    pub(crate) fn get(&self, id: &SandboxId) -> Option<Arc<T>> {
        self.entries.lock().get(id).map(Arc::clone)
    }

    /// Adds the value that `make` returns for a new registration, after `prepare`. Fails with `taken()` if the id exists.
    /// `prepare` and `make` run under the registry's lock, so only one of two concurrent callers prepares.
    pub(crate) fn insert_with<E>(
        &self,
        id: &SandboxId,
        taken: impl FnOnce() -> E,
        prepare: impl FnOnce() -> Result<(), E>,
        make: impl FnOnce(Registration) -> Arc<T>,
    ) -> Result<Arc<T>, E> {
        match self.entries.lock().entry(id.clone()) {
            Entry::Occupied(_) => Err(taken()),
            Entry::Vacant(entry) => {
                prepare()?;
                let (entries, id) = (Arc::clone(&self.entries), id.clone());
                let remove = move || drop(entries.lock().remove(&id));
                let registration = Registration(Some(Box::new(remove)));
                Ok(Arc::clone(entry.insert(make(registration))))
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.entries.lock().values().map(Arc::clone).collect()
    }
}

// === impl Registration ===

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(remove) = self.0.take() {
            remove();
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registration")
    }
}
