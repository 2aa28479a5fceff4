//! Responses to create requests that carried an idempotency key.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::{
    Ledger,
    error::{LedgerError, failed},
};
use crate::time::Micros;

/// How long a response is stored.
const RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Stored responses at most; the oldest are removed first.
const MAX_RESPONSES: i64 = 100_000;

/// The response to a create request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredResponse {
    /// The idempotency key.
    pub(crate) key: String,
    /// Digest of the request.
    pub(crate) digest: String,
    /// Body of the response, which contains tokens.
    pub(crate) body: String,
}

impl StoredResponse {
    /// Inserts the response and removes expired and excess ones.
    pub(super) async fn insert(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        let now = Micros::now();
        // First, because an expired response may have the same key.
        sqlx::query("DELETE FROM answers WHERE created_at < ?")
            .bind(now.before(RETENTION).0)
            .execute(&mut *connection)
            .await?;
        sqlx::query("INSERT INTO answers (key, digest, body, created_at) VALUES (?, ?, ?, ?)")
            .bind(&self.key)
            .bind(&self.digest)
            .bind(&self.body)
            .bind(now.0)
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?")
            .bind(MAX_RESPONSES)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }
}

impl Ledger {
    /// Reads the response to the create request with this idempotency key.
    pub(crate) async fn response(&self, key: &str) -> Result<Option<StoredResponse>, LedgerError> {
        let found: Option<(String, String)> =
            sqlx::query_as("SELECT digest, body FROM answers WHERE key = ? AND created_at >= ?")
                .bind(key)
                .bind(Micros::now().before(RETENTION).0)
                .fetch_optional(&self.readers)
                .await
                .map_err(failed("read stored response"))?;
        Ok(found.map(|(digest, body)| StoredResponse {
            key: key.to_owned(),
            digest,
            body,
        }))
    }
}
