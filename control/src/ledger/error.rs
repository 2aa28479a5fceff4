//! Errors of the ledger.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

/// The ledger did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not a usable database.
    #[error("failed to open ledger {path}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// The error of SQLite.
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("failed to migrate ledger {path}")]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// The error of the migration.
        #[source]
        source: MigrateError,
    },
}

/// A query failed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite returned an error.
    #[error("failed to {action} in the ledger")]
    Database {
        /// A verb and its object.
        action: &'static str,
        /// The error of SQLite.
        #[source]
        source: sqlx::Error,
    },
    /// A row has a value that this program does not write.
    #[error("ledger row {id} has an invalid {column}")]
    Malformed {
        /// The row's key.
        id: String,
        /// The column.
        column: &'static str,
    },
}

/// Converts an error of SQLite, for `map_err`.
pub(super) fn failed(action: &'static str) -> impl FnOnce(sqlx::Error) -> LedgerError {
    move |source| LedgerError::Database { action, source }
}
