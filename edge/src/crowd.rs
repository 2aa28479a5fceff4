//! How many requests are in each sandbox.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pool_api::{Epoch, SandboxId};

/// The requests under way, by sandbox. A sandbox without one takes no memory.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    sandboxes: Arc<Mutex<HashMap<SandboxId, Present>>>,
    limit: u32,
}

#[derive(Debug, Default)]
struct Present {
    count: u32,
    /// The last life whose wake was seen here.
    woken: Option<Epoch>,
}

/// A request's place in the crowd.
#[derive(Debug)]
#[must_use = "the place is free as soon as the seat is dropped"]
pub(crate) struct Seat {
    crowd: Crowd,
    sandbox: SandboxId,
}

/// A sandbox that has as many requests as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sandbox {sandbox} has {limit} requests already")]
pub(crate) struct Full {
    pub(crate) sandbox: SandboxId,
    pub(crate) limit: u32,
}

impl Crowd {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            sandboxes: Arc::default(),
            limit,
        }
    }

    /// Takes a place in a sandbox.
    pub(crate) fn join(&self, sandbox: &SandboxId) -> Result<Seat, Full> {
        let mut sandboxes = self.sandboxes();
        let count = sandboxes.get(sandbox).map_or(0, |present| present.count);
        if count >= self.limit {
            return Err(Full {
                sandbox: sandbox.clone(),
                limit: self.limit,
            });
        }
        sandboxes.entry(sandbox.clone()).or_default().count = count + 1;
        Ok(Seat {
            crowd: self.clone(),
            sandbox: sandbox.clone(),
        })
    }

    fn sandboxes(&self) -> MutexGuard<'_, HashMap<SandboxId, Present>> {
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether this is the first of those who waited for the same wake to say so. They are all in the crowd at once.
    pub(crate) fn first_to_see(&self, life: Epoch) -> bool {
        match self.crowd.sandboxes().get_mut(&self.sandbox) {
            Some(present) => present.woken.replace(life) != Some(life),
            None => false,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut present) = self.crowd.sandboxes().entry(self.sandbox.clone()) {
            present.get_mut().count -= 1;
            if present.get().count == 0 {
                present.remove();
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn places_are_bounded_by_sandbox_and_free_again() {
        let crowd = Crowd::new(2);
        let (a, b): (SandboxId, SandboxId) = ("ia".parse().unwrap(), "ib".parse().unwrap());
        let first = crowd.join(&a).unwrap();
        let second = crowd.join(&a).unwrap();
        let full = crowd.join(&a).unwrap_err();
        assert_eq!((full.sandbox, full.limit), (a.clone(), 2));
        let _other = crowd.join(&b).unwrap();
        drop(first);
        let third = crowd.join(&a).unwrap();
        assert!(crowd.join(&a).is_err());
        drop((second, third));
        assert_eq!(crowd.sandboxes().len(), 1, "an empty sandbox is forgotten");
    }

    #[test]
    fn a_wake_is_seen_once() {
        let crowd = Crowd::new(9);
        let id: SandboxId = "ia".parse().unwrap();
        let (a, b) = (crowd.join(&id).unwrap(), crowd.join(&id).unwrap());
        assert!(a.first_to_see(Epoch(2)));
        assert!(!b.first_to_see(Epoch(2)));
        assert!(b.first_to_see(Epoch(3)));
    }
}
