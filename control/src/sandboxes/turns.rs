//! Whose turn it is with a sandbox.
//!
//! Wakes and rollbacks by the API go one at a time, and after the pauses that are under way; pauses share. So a connect
//! during a pause waits and then wakes, and of two connects the second finds a running sandbox.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use pool_api::SandboxId;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Sandboxes that are remembered before those that nobody uses are forgotten.
const ROOM: usize = 64;

/// One lock a sandbox, for as long as somebody holds it or waits.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<SandboxId, Weak<RwLock<()>>>>);

impl Turns {
    fn of(&self, id: &SandboxId) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= ROOM && locks.len() == locks.capacity() {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::default();
        locks.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }

    /// For a pause.
    pub(crate) async fn shared(&self, id: &SandboxId) -> OwnedRwLockReadGuard<()> {
        self.of(id).read_owned().await
    }

    /// For what there can be one of at a time; `None` while there is one.
    pub(crate) fn alone_now(&self, id: &SandboxId) -> Option<OwnedRwLockWriteGuard<()>> {
        self.of(id).try_write_owned().ok()
    }

    /// For what makes it run.
    pub(crate) async fn alone(&self, id: &SandboxId) -> OwnedRwLockWriteGuard<()> {
        self.of(id).write_owned().await
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[tokio::test]
    async fn locks_that_nobody_holds_are_forgotten() {
        let turns = Turns::default();
        let held = turns.alone(&"iheld".parse().unwrap()).await;
        for number in 0..10_000 {
            drop(turns.shared(&format!("i{number}").parse().unwrap()).await);
        }
        assert!(turns.0.lock().unwrap().len() < 1000);
        assert!(
            turns.0.lock().unwrap()[&"iheld".parse().unwrap()]
                .upgrade()
                .is_some()
        );
        drop(held);
    }
}
