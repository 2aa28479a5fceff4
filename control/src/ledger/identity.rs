//! The data directory that a ledger belongs to.

use std::path::Path;

use super::{
    Ledger,
    error::{LedgerError, failed},
};
use crate::data_dir::Identity;

/// How a ledger relates to a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It is the directory's, as of its last start.
    Current,
    /// It has no sandbox, template or identity.
    Fresh,
    /// It is of an earlier start: a restored backup.
    Older,
    /// It is another directory's.
    Foreign,
}

impl Ledger {
    /// Compares the ledger with the identity of a data directory.
    pub(crate) async fn relation(&self, directory: &Identity) -> Result<Relation, LedgerError> {
        const ACTION: &str = "read identity";
        let value = async |name: &str| {
            let row: Option<(String,)> = sqlx::query_as("SELECT value FROM meta WHERE name = ?")
                .bind(name)
                .fetch_optional(&self.readers)
                .await
                .map_err(failed(ACTION))?;
            Ok::<_, LedgerError>(row.map(|(value,)| value))
        };
        let generation = value("generation").await?;
        let generation: u64 = generation.and_then(|text| text.parse().ok()).unwrap_or(0);
        match value("data_dir").await? {
            // A ledger of an earlier version of Catnap has rows, but no identity.
            None if directory.generation == 0 || !self.is_empty().await? => Ok(Relation::Current),
            None => Ok(Relation::Fresh),
            Some(id) if id != directory.id => Ok(Relation::Foreign),
            Some(_) if generation < directory.generation => Ok(Relation::Older),
            Some(_) => Ok(Relation::Current),
        }
    }

    async fn is_empty(&self) -> Result<bool, LedgerError> {
        let (rows,): (i64,) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM sandboxes) + (SELECT count(*) FROM builds)",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed("count rows"))?;
        Ok(rows == 0)
    }

    /// Records the identity of the directory that the ledger belongs to from now on.
    pub(crate) async fn set_identity(&self, identity: &Identity) -> Result<(), LedgerError> {
        const ACTION: &str = "record identity";
        let mut changes = self.begin(ACTION).await?;
        for (name, value) in [
            ("data_dir", identity.id.clone()),
            ("generation", identity.generation.to_string()),
        ] {
            sqlx::query("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)")
                .bind(name)
                .bind(value)
                .execute(&mut *changes)
                .await
                .map_err(failed(ACTION))?;
        }
        changes.commit().await.map_err(failed(ACTION))
    }

    /// Copies the ledger to a new file.
    pub(crate) async fn copy_to(&self, path: &Path) -> Result<(), LedgerError> {
        sqlx::query("VACUUM INTO ?")
            .bind(path.to_string_lossy().into_owned())
            .execute(&self.writer)
            .await
            .map_err(failed("copy the rows"))?;
        Ok(())
    }
}
