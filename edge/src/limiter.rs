//! The limit of concurrent requests to each sandbox.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pool_api::SandboxId;

/// Limits the concurrent requests to each sandbox. A sandbox without requests uses no memory.
#[derive(Debug, Clone)]
pub(crate) struct ConcurrencyLimiter {
    in_flight: Arc<Mutex<HashMap<SandboxId, u32>>>,
    limit: u32,
}

/// Counts one request to a sandbox until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the slot frees it"]
pub(crate) struct Slot {
    limiter: ConcurrencyLimiter,
    sandbox: SandboxId,
}

/// A sandbox that has as many concurrent requests as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sandbox {sandbox} has reached its limit of {limit} concurrent requests")]
pub(crate) struct LimitReached {
    pub(crate) sandbox: SandboxId,
    pub(crate) limit: u32,
}

impl ConcurrencyLimiter {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            in_flight: Arc::default(),
            limit,
        }
    }

    /// Takes a slot of a sandbox.
    pub(crate) fn acquire(&self, sandbox: &SandboxId) -> Result<Slot, LimitReached> {
        let mut in_flight = self.in_flight();
        let count = in_flight.get(sandbox).copied().unwrap_or(0);
        if count >= self.limit {
            return Err(LimitReached {
                sandbox: sandbox.clone(),
                limit: self.limit,
            });
        }
        in_flight.insert(sandbox.clone(), count + 1);
        Ok(Slot {
            limiter: self.clone(),
            sandbox: sandbox.clone(),
        })
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<SandboxId, u32>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.limiter.in_flight().entry(self.sandbox.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_applies_per_sandbox_and_drop_frees_slot() {
        let limiter = ConcurrencyLimiter::new(2);
        let (a, b): (SandboxId, SandboxId) = ("ia".parse().unwrap(), "ib".parse().unwrap());
        let first = limiter.acquire(&a).unwrap();
        let second = limiter.acquire(&a).unwrap();
        let error = limiter.acquire(&a).unwrap_err();
        assert_eq!((error.sandbox, error.limit), (a.clone(), 2));
        let _other = limiter.acquire(&b).unwrap();
        drop(first);
        let third = limiter.acquire(&a).unwrap();
        assert!(limiter.acquire(&a).is_err());
        drop((second, third));
        assert_eq!(limiter.in_flight().len(), 1, "no entry without requests");
    }
}
