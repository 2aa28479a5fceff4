//! Creations that are carried out once however often they are asked for.
//!
//! The answer is noted with the sandbox, in one transaction, before it is given. So whoever asks again, after a crash
//! too, is told of the same sandbox; and a crash before it was noted leaves a sandbox that nobody was told of, which the
//! next start kills.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Failure, NewSandbox, Sandboxes};
use crate::ledger::{Answer, Entry};

/// How long a caller waits for another's creation.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a caller names what it asks for.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// The name.
    pub(crate) text: String,
    /// The digest of what is asked for.
    pub(crate) digest: String,
}

/// What came of a creation.
#[derive(Debug)]
pub(crate) enum Made {
    /// A sandbox.
    Now(Box<Entry>),
    /// What was answered before.
    Before(String),
}

/// Creations under way.
#[derive(Debug, Default)]
pub(crate) struct Once(Mutex<HashMap<String, Underway>>);

#[derive(Debug)]
struct Underway {
    digest: String,
    /// Closes when it is done.
    done: watch::Receiver<()>,
}

/// The right to carry out a creation; others wait until it is dropped.
struct Right<'a> {
    once: &'a Once,
    key: &'a str,
    _done: watch::Sender<()>,
}

impl Once {
    fn underway(&self) -> MutexGuard<'_, HashMap<String, Underway>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right, or what to wait for.
    fn begin<'a>(
        &'a self,
        key: &'a Key,
    ) -> Result<Result<Right<'a>, watch::Receiver<()>>, Failure> {
        let mut underway = self.underway();
        if let Some(other) = underway.get(&key.text) {
            return if other.digest == key.digest {
                Ok(Err(other.done.clone()))
            } else {
                Err(Failure::OtherRequest)
            };
        }
        let (sender, done) = watch::channel(());
        let digest = key.digest.clone();
        underway.insert(key.text.clone(), Underway { digest, done });
        Ok(Ok(Right {
            once: self,
            key: &key.text,
            _done: sender,
        }))
    }

    /// The right, once nobody else has it; not for ever.
    async fn right<'a>(&'a self, key: &'a Key) -> Result<Right<'a>, Failure> {
        let right = async {
            loop {
                match self.begin(key)? {
                    Ok(right) => return Ok(right),
                    // It ends by closing.
                    Err(mut done) => drop(done.changed().await),
                }
            }
        };
        let right = tokio::time::timeout(PATIENCE, right).await;
        right.unwrap_or(Err(Failure::StillCreating))
    }
}

impl Drop for Right<'_> {
    fn drop(&mut self) {
        self.once.underway().remove(self.key);
    }
}

impl Sandboxes {
    /// Makes a sandbox unless one was made for this key. `answer` says what the caller is told of it.
    pub(crate) async fn create_once(
        &self,
        key: Key,
        new: NewSandbox,
        answer: fn(&Entry) -> String,
    ) -> Result<Made, Failure> {
        let _right = self.once.right(&key).await?;
        if let Some(before) = self.ledger.answer(&key.text).await? {
            return if before.digest == key.digest {
                Ok(Made::Before(before.body))
            } else {
                Err(Failure::OtherRequest)
            };
        }
        let answered = |entry: &Entry| Answer {
            key: key.text.clone(),
            digest: key.digest.clone(),
            body: answer(entry),
        };
        let entry = self.create(new, Some(&answered)).await?;
        Ok(Made::Now(Box::new(entry)))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn key(digest: &str) -> Key {
        Key {
            text: "k".to_owned(),
            digest: digest.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_to_ask_again() {
        let (once, same, other) = (Once::default(), key("a"), key("b"));
        let right = once.right(&same).await.unwrap();
        let late = once.right(&same).await;
        assert!(matches!(late, Err(Failure::StillCreating)));
        let wrong = once.right(&other).await;
        assert!(matches!(wrong, Err(Failure::OtherRequest)));
        let next = async { once.right(&other).await.map(drop) };
        drop(right);
        assert!(next.await.is_ok(), "what is done is done");
        assert!(once.underway().is_empty());
    }
}
