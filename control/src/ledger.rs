//! What was promised about each sandbox, in SQLite.
//!
//! Every change is on disk before it is answered (WAL, `synchronous=FULL`), so that a crash of everything loses nothing
//! that a caller was told.

mod row;

use std::{os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration};

use pool_api::{Epoch, SandboxId};
use sqlx::{
    SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::row::Row;
pub(crate) use self::row::{Entry, Lasting};
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

    /// Adds a sandbox.
    pub(crate) async fn insert(&self, entry: &Entry) -> Result<(), LedgerError> {
        let row = Row::from(entry);
        sqlx::query(
            "INSERT INTO sandboxes (id, template, state, epoch, started_at, end_at, timeout, idle_timeout, auto_pause, \
             auto_resume, envd_token, traffic_token, vcpus, memory, disk, metadata, env, network) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.id)
        .bind(row.template)
        .bind(row.state)
        .bind(row.epoch)
        .bind(row.started_at)
        .bind(row.end_at)
        .bind(row.timeout)
        .bind(row.idle_timeout)
        .bind(row.auto_pause)
        .bind(row.auto_resume)
        .bind(row.envd_token)
        .bind(row.traffic_token)
        .bind(row.vcpus)
        .bind(row.memory)
        .bind(row.disk)
        .bind(row.metadata)
        .bind(row.env)
        .bind(row.network)
        .execute(&self.pool)
        .await
        .map_err(failed("add a sandbox"))?;
        Ok(())
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
            "UPDATE sandboxes SET state = 'running', epoch = ?, started_at = ?, end_at = ? WHERE id = ? AND epoch <= ?",
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
            "UPDATE sandboxes SET state = 'running', epoch = ?, started_at = ?, end_at = ? \
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

    /// Notes that a sandbox was paused, in this life, at that time. An older life changes nothing.
    pub(crate) async fn paused(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        at: Micros,
    ) -> Result<(), LedgerError> {
        let epoch = row::signed(epoch.0);
        sqlx::query(
            "UPDATE sandboxes SET state = 'paused', epoch = ?, end_at = ? \
             WHERE id = ? AND epoch <= ? AND state = 'running'",
        )
        .bind(epoch)
        .bind(at.0)
        .bind(id.as_str())
        .bind(epoch)
        .execute(&self.pool)
        .await
        .map_err(failed("note a pause"))?;
        Ok(())
    }

    /// Moves a running sandbox's end. `only_later`: never to an earlier time. Says where it is then; `None` when there
    /// is no such running sandbox.
    pub(crate) async fn set_end(
        &self,
        id: &SandboxId,
        end_at: Micros,
        only_later: bool,
    ) -> Result<Option<Micros>, LedgerError> {
        let end: Option<(i64,)> = sqlx::query_as(
            "UPDATE sandboxes SET end_at = CASE WHEN ? THEN max(end_at, ?) ELSE ? END \
             WHERE id = ? AND state = 'running' RETURNING end_at",
        )
        .bind(only_later)
        .bind(end_at.0)
        .bind(end_at.0)
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("move the end of a sandbox"))?;
        Ok(end.map(|(end,)| Micros(end)))
    }

    /// When the next running sandbox ends.
    pub(crate) async fn first_end(&self) -> Result<Option<Micros>, LedgerError> {
        let (end,): (Option<i64>,) =
            sqlx::query_as("SELECT min(end_at) FROM sandboxes WHERE state = 'running'")
                .fetch_one(&self.pool)
                .await
                .map_err(failed("read the first end"))?;
        Ok(end.map(Micros))
    }

    /// Running sandboxes whose end has come.
    pub(crate) async fn due(&self, now: Micros) -> Result<Vec<Entry>, LedgerError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT * FROM sandboxes WHERE state = 'running' AND end_at <= ?")
                .bind(now.0)
                .fetch_all(&self.pool)
                .await
                .map_err(failed("read what is due"))?;
        rows.into_iter().map(Entry::try_from).collect()
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
