//! Objects of the host that the ledger does not know.

use pool_api::{SandboxId, SnapshotId};

use super::{
    Ledger,
    column::malformed,
    error::{LedgerError, failed},
};
use crate::time::Micros;

/// An object of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostObject {
    /// A paused sandbox.
    Sandbox(SandboxId),
    /// A retained snapshot.
    Snapshot(SnapshotId),
}

/// An object in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub(crate) object: HostObject,
    /// The time since which the object is in quarantine.
    pub(crate) since: Micros,
}

impl HostObject {
    /// The kind as text.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Sandbox(_) => "sandbox",
            Self::Snapshot(_) => "snapshot",
        }
    }

    /// The id as text.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Sandbox(id) => id.as_str(),
            Self::Snapshot(id) => id.as_str(),
        }
    }
}

impl Ledger {
    /// Puts an object into quarantine, unless it is there.
    pub(crate) async fn quarantine(&self, object: &HostObject) -> Result<(), LedgerError> {
        sqlx::query("INSERT OR IGNORE INTO quarantine (kind, id, since) VALUES (?, ?, ?)")
            .bind(object.kind())
            .bind(object.id())
            .bind(Micros::now().0)
            .execute(&self.writer)
            .await
            .map_err(failed("quarantine object"))?;
        Ok(())
    }

    /// Lists the objects in quarantine, oldest first.
    pub(crate) async fn quarantined(&self) -> Result<Vec<Quarantined>, LedgerError> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT kind, id, since FROM quarantine ORDER BY since, kind, id")
                .fetch_all(&self.readers)
                .await
                .map_err(failed("list quarantine"))?;
        rows.into_iter()
            .map(|(kind, id, since)| {
                let object = match kind.as_str() {
                    "sandbox" => id.parse().map(HostObject::Sandbox),
                    _ => id.parse().map(HostObject::Snapshot),
                };
                Ok(Quarantined {
                    object: object.map_err(|_| malformed(&id, "id"))?,
                    since: Micros(since),
                })
            })
            .collect()
    }

    /// Ends the quarantine of an object; returns whether it was there.
    pub(crate) async fn end_quarantine(&self, object: &HostObject) -> Result<bool, LedgerError> {
        let done = sqlx::query("DELETE FROM quarantine WHERE kind = ? AND id = ?")
            .bind(object.kind())
            .bind(object.id())
            .execute(&self.writer)
            .await
            .map_err(failed("end quarantine"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Lists the snapshots that the host is to release.
    pub(crate) async fn pending_releases(&self) -> Result<Vec<SnapshotId>, LedgerError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT snapshot FROM releases")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list releases"))?;
        rows.into_iter()
            .map(|(id,)| id.parse().map_err(|_| malformed(&id, "snapshot")))
            .collect()
    }

    /// Records that the host has released a snapshot.
    pub(crate) async fn released(&self, snapshot: &SnapshotId) -> Result<(), LedgerError> {
        sqlx::query("DELETE FROM releases WHERE snapshot = ?")
            .bind(snapshot.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed("record release"))?;
        Ok(())
    }
}
