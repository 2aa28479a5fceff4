//! Answers to creations that carried an idempotency key.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::{Ledger, LedgerError, failed};
use crate::time::Micros;

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How many are; the oldest are forgotten first.
const MOST: i64 = 100_000;

/// The answer to a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What the caller named it.
    pub(crate) key: String,
    /// Of what was asked.
    pub(crate) digest: String,
    /// What was answered; it has tokens.
    pub(crate) body: String,
}

impl Answer {
    /// Adds the answer, and forgets what need not be remembered any more.
    pub(super) async fn insert(&self, to: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let now = Micros::now();
        // One that nobody was reminded of in time makes room for the next of its name.
        sqlx::query("DELETE FROM answers WHERE created_at < ?")
            .bind(now.before(REMEMBERED).0)
            .execute(&mut *to)
            .await?;
        sqlx::query("INSERT INTO answers (key, digest, body, created_at) VALUES (?, ?, ?, ?)")
            .bind(&self.key)
            .bind(&self.digest)
            .bind(&self.body)
            .bind(now.0)
            .execute(&mut *to)
            .await?;
        sqlx::query("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?")
            .bind(MOST)
            .execute(&mut *to)
            .await?;
        Ok(())
    }
}

impl Ledger {
    /// What was answered to a creation with this key.
    pub(crate) async fn answer(&self, key: &str) -> Result<Option<Answer>, LedgerError> {
        let found: Option<(String, String)> =
            sqlx::query_as("SELECT digest, body FROM answers WHERE key = ? AND created_at >= ?")
                .bind(key)
                .bind(Micros::now().before(REMEMBERED).0)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed("look an answer up"))?;
        Ok(found.map(|(digest, body)| Answer {
            key: key.to_owned(),
            digest,
            body,
        }))
    }
}
