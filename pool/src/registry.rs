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
    entries: Entries<T>,
}

/// The values; `None` for an id that is reserved for a value to come.
type Entries<T> = Arc<Mutex<HashMap<SandboxId, Option<Arc<T>>>>>;

/// An id that is taken, without a value yet. Dropping it frees the id.
#[derive(Debug)]
#[must_use = "the id is free as soon as the reservation is dropped"]
pub(crate) struct ReservedId<T: Send + Sync + 'static> {
    entries: Entries<T>,
    id: SandboxId,
    registration: Registration,
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

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self {
            entries: Arc::clone(&self.entries),
        }
    }
}

impl<T: Send + Sync + 'static> Registry<T> {
    pub(crate) fn get(&self, id: &SandboxId) -> Option<Arc<T>> {
        self.entries.lock().get(id)?.clone()
    }

    /// Takes an id for a value to come; `None` when it is taken already.
    pub(crate) fn reserve(&self, id: &SandboxId) -> Option<ReservedId<T>> {
        match self.entries.lock().entry(id.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => {
                entry.insert(None);
                let (entries, removed) = (Arc::clone(&self.entries), id.clone());
                let remove = move || drop(entries.lock().remove(&removed));
                Some(ReservedId {
                    entries: Arc::clone(&self.entries),
                    id: id.clone(),
                    registration: Registration(Some(Box::new(remove))),
                })
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.entries
            .lock()
            .values()
            .flatten()
            .map(Arc::clone)
            .collect()
    }
}

// === impl ReservedId ===

impl<T: Send + Sync + 'static> ReservedId<T> {
    /// Adds the value that `make` returns for the registration, unless the registration is dropped by then.
    pub(crate) fn fill(self, make: impl FnOnce(Registration) -> Arc<T>) -> Arc<T> {
        // Under the lock, so that a value that ends at once is not added after its end.
        let mut entries = self.entries.lock();
        let value = make(self.registration);
        entries.insert(self.id, Some(Arc::clone(&value)));
        value
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
