//! Locks of sandboxes.
//!
//! Pauses share a sandbox's lock; resumes, rollbacks and network changes hold it exclusively. So a connect during a pause
//! waits for the pause and then wakes the sandbox, and the second of two connects finds it running.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use pool_api::SandboxId;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Entries below which unused ones are not removed.
const SWEEP_THRESHOLD: usize = 64;

/// One lock per sandbox, for as long as a task holds it or waits for it.
#[derive(Debug, Default)]
pub(crate) struct SandboxLocks(Mutex<HashMap<SandboxId, Weak<RwLock<()>>>>);

impl SandboxLocks {
    fn lock_of(&self, id: &SandboxId) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= SWEEP_THRESHOLD && locks.len() == locks.capacity() {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::default();
        locks.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }

    /// Waits for the lock in shared mode.
    pub(super) async fn shared(&self, id: &SandboxId) -> OwnedRwLockReadGuard<()> {
        self.lock_of(id).read_owned().await
    }

    /// Waits for the lock in exclusive mode.
    pub(super) async fn exclusive(&self, id: &SandboxId) -> OwnedRwLockWriteGuard<()> {
        self.lock_of(id).write_owned().await
    }

    /// Takes the lock in exclusive mode if it is free.
    pub(super) fn try_exclusive(&self, id: &SandboxId) -> Option<OwnedRwLockWriteGuard<()>> {
        self.lock_of(id).try_write_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unused_locks_are_removed() {
        let locks = SandboxLocks::default();
        let held = locks.exclusive(&"iheld".parse().unwrap()).await;
        for number in 0..10_000 {
            drop(locks.shared(&format!("i{number}").parse().unwrap()).await);
        }
        assert!(locks.0.lock().unwrap().len() < 1000);
        assert!(
            locks.0.lock().unwrap()[&"iheld".parse().unwrap()]
                .upgrade()
                .is_some()
        );
        drop(held);
    }
}
