//! Serializes create requests with the same idempotency key.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{error::ServiceError, ledger::SandboxRecord};

/// How long a request waits for an earlier one with the same key.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The idempotency key of a request.
#[derive(Debug, Clone)]
pub(crate) struct IdempotencyKey {
    /// The key that the client chose.
    pub(crate) text: String,
    /// Digest of the request.
    pub(crate) digest: String,
}

/// The result of an idempotent create request.
#[derive(Debug)]
pub(crate) enum CreateOutcome {
    /// A new sandbox.
    Created(Box<SandboxRecord>),
    /// The response to an earlier request with the same key.
    Replayed(String),
}

/// Create requests in progress, by idempotency key.
#[derive(Debug, Default)]
pub(crate) struct InFlightCreates(Mutex<HashMap<String, InFlight>>);

#[derive(Debug)]
struct InFlight {
    digest: String,
    /// Closes when the request is done.
    done: watch::Receiver<()>,
}

/// The exclusive right to carry out requests with a key, until it is dropped.
#[derive(Debug)]
pub(crate) struct CreateGuard<'a> {
    creates: &'a InFlightCreates,
    key: &'a str,
    _done: watch::Sender<()>,
}

enum Attempt<'a> {
    Acquired(CreateGuard<'a>),
    Busy(watch::Receiver<()>),
}

impl InFlightCreates {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, InFlight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_acquire<'a>(&'a self, key: &'a IdempotencyKey) -> Result<Attempt<'a>, ServiceError> {
        let mut entries = self.entries();
        if let Some(other) = entries.get(&key.text) {
            return if other.digest == key.digest {
                Ok(Attempt::Busy(other.done.clone()))
            } else {
                Err(ServiceError::KeyReused)
            };
        }
        let (sender, done) = watch::channel(());
        let digest = key.digest.clone();
        entries.insert(key.text.clone(), InFlight { digest, done });
        Ok(Attempt::Acquired(CreateGuard {
            creates: self,
            key: &key.text,
            _done: sender,
        }))
    }

    /// Waits until no other request with this key is in progress.
    pub(super) async fn acquire<'a>(
        &'a self,
        key: &'a IdempotencyKey,
    ) -> Result<CreateGuard<'a>, ServiceError> {
        let guard = async {
            loop {
                match self.try_acquire(key)? {
                    Attempt::Acquired(guard) => return Ok(guard),
                    // The error is that it closed.
                    Attempt::Busy(mut done) => drop(done.changed().await),
                }
            }
        };
        let guard = tokio::time::timeout(WAIT_TIMEOUT, guard).await;
        guard.unwrap_or(Err(ServiceError::CreateInProgress))
    }
}

impl Drop for CreateGuard<'_> {
    fn drop(&mut self) {
        self.creates.entries().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digest: &str) -> IdempotencyKey {
        IdempotencyKey {
            text: "k".to_owned(),
            digest: digest.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_create_times_out_as_in_progress() {
        let (creates, same, other) = (InFlightCreates::default(), key("a"), key("b"));
        let guard = creates.acquire(&same).await.unwrap();
        let late = creates.acquire(&same).await;
        assert!(matches!(late, Err(ServiceError::CreateInProgress)));
        let reused = creates.acquire(&other).await;
        assert!(matches!(reused, Err(ServiceError::KeyReused)));
        let next = async { creates.acquire(&other).await.map(drop) };
        drop(guard);
        assert!(next.await.is_ok(), "a dropped guard frees its key");
        assert!(creates.entries().is_empty());
    }
}
