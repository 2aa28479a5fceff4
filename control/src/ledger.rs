//! What was promised about each sandbox, in SQLite.
//!
//! Every change is on disk before it is answered (WAL, `synchronous=FULL`), so that a crash of everything loses nothing
//! that a caller was told.

mod answers;
mod catalogue;
mod ends;
mod row;

use std::{os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration};

use pool_api::{Epoch, SandboxId, SnapshotScope};
use serde_json::Value;
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::row::Row;
pub(crate) use self::{
    answers::Answer,
    catalogue::{Build, Named, Page, Template},
    row::{Entry, Lasting},
};
use crate::time::Micros;

/// The ledger.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pool: SqlitePool,
}

/// A ledger that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not usable.
    #[error("open ledger {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Its tables could not be brought up to date.
    #[error("migrate ledger {path}")]
    Migrate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: MigrateError,
    },
}

/// The ledger did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database failed.
    #[error("{attempt} in the ledger")]
    Database {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A row is not what this program writes.
    #[error("the ledger's row of sandbox {id} has no valid {column}")]
    Malformed {
        /// The row's key, as it is.
        id: String,
        /// The column.
        column: &'static str,
    },
}

/// Who put a sandbox to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Whoever may ask for that, or its end.
    Owner,
    /// The host.
    Host,
}

fn failed(attempt: &'static str) -> impl FnOnce(sqlx::Error) -> LedgerError {
    move |source| LedgerError::Database { attempt, source }
}

// === impl Ledger ===

impl Ledger {
    /// Opens the file, making it and its tables when they are not there.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, OpenError> {
        // It holds tokens. SQLite gives the files beside it the same mode.
        let made = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        if let Err(source) = made {
            return Err(OpenError::Open {
                path,
                source: sqlx::Error::Io(source),
            });
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await;
        let pool = match pool {
            Ok(pool) => pool,
            Err(source) => return Err(OpenError::Open { path, source }),
        };
        match sqlx::migrate!().run(&pool).await {
            Ok(()) => Ok(Self { pool }),
            Err(source) => Err(OpenError::Migrate { path, source }),
        }
    }

    /// Closes the file.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(
        &self,
        attempt: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, LedgerError> {
        // Takes the write lock at once: two that began by reading could not both go on to write.
        let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(failed(attempt))
    }

    /// Adds a sandbox, and the answer to whoever asked for it with an idempotency key: both or neither.
    pub(crate) async fn insert(
        &self,
        entry: &Entry,
        answer: Option<&Answer>,
    ) -> Result<(), LedgerError> {
        const ATTEMPT: &str = "add a sandbox";
        let mut changes = self.begin(ATTEMPT).await?;
        Row::from(entry)
            .insert(&mut changes)
            .await
            .map_err(failed(ATTEMPT))?;
        if let Some(answer) = answer {
            answer.insert(&mut changes).await.map_err(failed(ATTEMPT))?;
        }
        changes.commit().await.map_err(failed(ATTEMPT))
    }

    /// A sandbox.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<Option<Entry>, LedgerError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM sandboxes WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a sandbox"))?;
        row.map(Entry::try_from).transpose()
    }

    /// Every sandbox, the one started last first.
    pub(crate) async fn all(&self) -> Result<Vec<Entry>, LedgerError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT * FROM sandboxes ORDER BY started_at DESC, id DESC")
                .fetch_all(&self.pool)
                .await
                .map_err(failed("read the sandboxes"))?;
        rows.into_iter().map(Entry::try_from).collect()
    }

    /// Notes that a sandbox runs, in this life, until then. An older life changes nothing.
    pub(crate) async fn started(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        started_at: Micros,
        end_at: Micros,
    ) -> Result<(), LedgerError> {
        let epoch = row::signed(epoch.0);
        sqlx::query(
            "UPDATE sandboxes SET state = 'running', epoch = ?, started_at = ?, end_at = ?, doomed_at = NULL \
             WHERE id = ? AND epoch <= ?",
        )
        .bind(epoch)
        .bind(started_at.0)
        .bind(end_at.0)
        .bind(id.as_str())
        .bind(epoch)
        .execute(&self.pool)
        .await
        .map_err(failed("note a start"))?;
        Ok(())
    }

    /// Notes that a sandbox was woken into this life by a request, unless this life is noted already, as it is when the
    /// API woke it. Says whether it was not.
    pub(crate) async fn woken(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        started_at: Micros,
        end_at: Micros,
    ) -> Result<bool, LedgerError> {
        let epoch = row::signed(epoch.0);
        let noted = sqlx::query(
            "UPDATE sandboxes SET state = 'running', epoch = ?, started_at = ?, end_at = ?, doomed_at = NULL \
             WHERE id = ? AND (epoch < ? OR (epoch = ? AND state = 'paused'))",
        )
        .bind(epoch)
        .bind(started_at.0)
        .bind(end_at.0)
        .bind(id.as_str())
        .bind(epoch)
        .bind(epoch)
        .execute(&self.pool)
        .await
        .map_err(failed("note a wake"))?;
        Ok(noted.rows_affected() > 0)
    }

    /// Notes that a running sandbox was put back to a snapshot: it lives another life, and its times stay. `entry` is
    /// what was known of it before.
    pub(crate) async fn rolled_back(&self, entry: &Entry, epoch: Epoch) -> Result<(), LedgerError> {
        let epoch = row::signed(epoch.0);
        // Whoever follows the host's events may have noted the new life already, and given it times of its own.
        sqlx::query(
            "UPDATE sandboxes SET state = 'running', epoch = ?1, started_at = ?2, doomed_at = NULL, \
             end_at = CASE WHEN epoch < ?1 THEN end_at ELSE ?3 END WHERE id = ?4 AND epoch <= ?1",
        )
        .bind(epoch)
        .bind(entry.started_at.0)
        .bind(entry.end_at.0)
        .bind(entry.id.as_str())
        .execute(&self.pool)
        .await
        .map_err(failed("note a rollback"))?;
        Ok(())
    }

    /// Notes that a sandbox was paused, in this life, at that time, and what was kept. An older life changes nothing.
    /// Says whether it was not noted before.
    ///
    /// One that the host put to sleep of its own accord, as it does when it shuts down, still ends when it was to end; one
    /// that its owner put to sleep, or that nobody used, ends only if it was to be killed even so.
    pub(crate) async fn paused(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        at: Micros,
        keep: SnapshotScope,
        by: By,
    ) -> Result<bool, LedgerError> {
        const ATTEMPT: &str = "note a pause";
        let epoch = row::signed(epoch.0);
        let noted = sqlx::query(
            "UPDATE sandboxes SET state = 'paused', epoch = ?1, end_at = ?2, keep = ?3, \
             doomed_at = CASE WHEN kill_paused OR (?4 AND NOT auto_pause AND idle_timeout IS NULL) THEN end_at END \
             WHERE id = ?5 AND epoch <= ?1 AND state = 'running'",
        )
        .bind(epoch)
        .bind(at.0)
        .bind(row::keep_text(keep))
        .bind(by == By::Host)
        .bind(id.as_str())
        .execute(&self.pool)
        .await
        .map_err(failed(ATTEMPT))?;
        let noted = noted.rows_affected() > 0;
        if by == By::Owner && !noted {
            // The host's event came first, and did not say whose pause it was.
            sqlx::query("UPDATE sandboxes SET doomed_at = NULL WHERE id = ? AND epoch = ? AND NOT kill_paused")
                .bind(id.as_str())
                .bind(epoch)
                .execute(&self.pool)
                .await
                .map_err(failed(ATTEMPT))?;
        }
        Ok(noted)
    }

    /// Replaces a sandbox's network, and the token its ports ask for; says whether it is known.
    pub(crate) async fn set_network(
        &self,
        id: &SandboxId,
        network: Option<&Value>,
        traffic_token: Option<&str>,
    ) -> Result<bool, LedgerError> {
        let done = sqlx::query("UPDATE sandboxes SET network = ?, traffic_token = ? WHERE id = ?")
            .bind(network.map(Value::to_string))
            .bind(traffic_token)
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("set the network of a sandbox"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets a sandbox; says whether it was known.
    pub(crate) async fn remove(&self, id: &SandboxId) -> Result<bool, LedgerError> {
        let done = sqlx::query("DELETE FROM sandboxes WHERE id = ?")
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("forget a sandbox"))?;
        Ok(done.rows_affected() > 0)
    }
}

#[cfg(test)]
mod tests;
