//! The durable record of sandboxes, templates, snapshots and idempotent responses, in SQLite.
//!
//! Every change is on disk before the caller gets its response (WAL, `synchronous=FULL`). A crash of the process or the
//! machine loses no acknowledged state. `ledger/column.rs` maps column names and encodings on disk to names in the code.

mod catalogue;
mod column;
mod deadlines;
mod error;
mod identity;
mod list;
mod quarantine;
mod record;
mod responses;
mod row;
mod sandboxes;
mod transitions;

use std::{os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration};

use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::error::failed;
pub use self::error::{LedgerError, OpenError};
pub(crate) use self::{
    catalogue::{Build, NamedSnapshot, SnapshotQuery, TagRecord, Template, Visibility},
    deadlines::DeadlineChange,
    identity::Relation,
    list::SandboxQuery,
    quarantine::{HostObject, Quarantined},
    record::{SandboxRecord, SandboxSettings},
    responses::StoredResponse,
    transitions::{PauseReport, StartSource},
};

/// Connections that read.
const READERS: u32 = 4;

/// Connections to the database.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// One connection: SQLite has one writer at a time, so waiting for it costs no connection of the readers.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Ledger {
    /// Opens the database, creating and migrating it as needed.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, OpenError> {
        // The file holds tokens. SQLite gives the WAL and SHM files the same mode.
        let created = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        if let Err(source) = created {
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
        let connect = async |connections: u32| {
            let pool = SqlitePoolOptions::new().max_connections(connections);
            let connected = pool.connect_with(options.clone()).await;
            connected.map_err(|source| OpenError::Open {
                path: path.clone(),
                source,
            })
        };
        let writer = connect(1).await?;
        if let Err(source) = sqlx::migrate!().run(&writer).await {
            return Err(OpenError::Migrate { path, source });
        }
        // After the migration, so that they have its schema.
        let readers = connect(READERS).await?;
        Ok(Self { writer, readers })
    }

    /// Closes the database.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn begin(
        &self,
        action: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, LedgerError> {
        // Takes the write lock at once: two transactions that begin by reading cannot both upgrade to writing.
        let begun = self.writer.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(failed(action))
    }
}

#[cfg(test)]
mod tests;
