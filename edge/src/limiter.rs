//! Limits of concurrent use by key: requests of a sandbox, requests and connections of a client address.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Limits the concurrent uses of each key. A key without uses takes no memory.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimiter<K> {
    in_use: Arc<Mutex<HashMap<K, u32>>>,
    limit: u32,
}

/// Counts one use of a key until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the slot frees it"]
pub(crate) struct Slot<K: Eq + Hash> {
    in_use: Arc<Mutex<HashMap<K, u32>>>,
    key: K,
}

/// A key that has as many concurrent uses as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} has reached its limit of {limit}")]
pub(crate) struct LimitReached<K> {
    pub(crate) key: K,
    pub(crate) limit: u32,
}

impl<K: Clone + Eq + Hash> ConcurrencyLimiter<K> {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            in_use: Arc::default(),
            limit,
        }
    }

    /// Takes a slot of a key.
    pub(crate) fn acquire(&self, key: &K) -> Result<Slot<K>, LimitReached<K>> {
        let mut in_use = lock(&self.in_use);
        let count = in_use.get(key).copied().unwrap_or(0);
        if count >= self.limit {
            return Err(LimitReached {
                key: key.clone(),
                limit: self.limit,
            });
        }
        in_use.insert(key.clone(), count + 1);
        Ok(Slot {
            in_use: self.in_use.clone(),
            key: key.clone(),
        })
    }
}

impl<K> Clone for ConcurrencyLimiter<K> {
    fn clone(&self) -> Self {
        Self {
            in_use: self.in_use.clone(),
            limit: self.limit,
        }
    }
}

impl<K: Eq + Hash> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut in_use = lock(&self.in_use);
        if let Some(count) = in_use.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                in_use.remove(&self.key);
            }
        }
    }
}

fn lock<K>(in_use: &Mutex<HashMap<K, u32>>) -> MutexGuard<'_, HashMap<K, u32>> {
    in_use.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_applies_per_key_and_drop_frees_slot() {
        let limiter = ConcurrencyLimiter::new(2);
        let (a, b) = ("a", "b");
        let first = limiter.acquire(&a).unwrap();
        let second = limiter.acquire(&a).unwrap();
        let error = limiter.acquire(&a).unwrap_err();
        assert_eq!((error.key, error.limit), (a, 2));
        let _other = limiter.acquire(&b).unwrap();
        drop(first);
        let third = limiter.acquire(&a).unwrap();
        assert!(limiter.acquire(&a).is_err());
        drop((second, third));
        assert_eq!(lock(&limiter.in_use).len(), 1, "no entry without requests");
    }
}
