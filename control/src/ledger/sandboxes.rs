//! Records of sandboxes: inserted, read, changed and removed.

use pool_api::{SandboxId, Secret};
use serde_json::Value;

use super::{
    Ledger,
    error::{LedgerError, failed},
    list::readable,
    record::SandboxRecord,
    responses::StoredResponse,
    row::SandboxRow,
};
use crate::network::Network;

impl Ledger {
    /// Inserts a sandbox, and in the same transaction the response to an idempotent request that created it.
    pub(crate) async fn insert(
        &self,
        record: &SandboxRecord,
        response: Option<&StoredResponse>,
    ) -> Result<(), LedgerError> {
        const ACTION: &str = "insert sandbox";
        let mut changes = self.begin(ACTION).await?;
        SandboxRow::from(record)
            .insert(&mut changes)
            .await
            .map_err(failed(ACTION))?;
        if let Some(response) = response {
            response
                .insert(&mut changes)
                .await
                .map_err(failed(ACTION))?;
        }
        changes.commit().await.map_err(failed(ACTION))
    }

    /// Reads a sandbox.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<Option<SandboxRecord>, LedgerError> {
        let row: Option<SandboxRow> = sqlx::query_as("SELECT * FROM sandboxes WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read sandbox"))?;
        row.map(SandboxRecord::try_from).transpose()
    }

    /// Reads every sandbox, in descending order of start. Returns as well the ids of rows that cannot be read.
    pub(crate) async fn all(&self) -> Result<(Vec<SandboxRecord>, Vec<String>), LedgerError> {
        let rows: Vec<SandboxRow> =
            sqlx::query_as("SELECT * FROM sandboxes ORDER BY started_at DESC, id DESC")
                .fetch_all(&self.readers)
                .await
                .map_err(failed("list sandboxes"))?;
        Ok(readable(rows))
    }

    /// Replaces the network of a sandbox and its traffic token. Returns whether the sandbox exists.
    pub(crate) async fn set_network(
        &self,
        id: &SandboxId,
        network: &Network,
        traffic_token: Option<&Secret>,
    ) -> Result<bool, LedgerError> {
        let done = sqlx::query("UPDATE sandboxes SET network = ?, traffic_token = ? WHERE id = ?")
            .bind(network.to_stored().as_ref().map(Value::to_string))
            .bind(traffic_token.map(Secret::expose))
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed("set network of sandbox"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes a sandbox. Returns whether it existed.
    pub(crate) async fn remove(&self, id: &SandboxId) -> Result<bool, LedgerError> {
        let done = sqlx::query("DELETE FROM sandboxes WHERE id = ?")
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed("remove sandbox"))?;
        Ok(done.rows_affected() > 0)
    }
}
