//! Sandboxes as callers see them.

use std::collections::HashMap;

use pool_api::{SandboxId, SandboxState};

use super::SandboxService;
use crate::{error::ServiceError, ledger::SandboxRecord};

/// A record with the present state of its sandbox on the host.
#[derive(Debug, Clone)]
pub(crate) struct SandboxView {
    /// The record.
    pub(crate) record: SandboxRecord,
    /// Whether it runs or is starting; otherwise it is paused or pausing.
    pub(crate) running: bool,
}

/// Whether a sandbox counts as running. `None` if it does not exist any more.
fn is_running(state: SandboxState) -> Option<bool> {
    match state {
        SandboxState::Starting | SandboxState::Running => Some(true),
        SandboxState::Pausing | SandboxState::Paused => Some(false),
        SandboxState::Stopping | SandboxState::Stopped(_) => None,
    }
}

impl SandboxService {
    /// Looks up a sandbox.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<SandboxView, ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let record = self.ledger.get(id).await?.ok_or_else(missing)?;
        let info = self.node.info(id).await.ok_or_else(missing)?;
        let running = is_running(info.state).ok_or_else(missing)?;
        Ok(SandboxView { record, running })
    }

    /// Lists every sandbox, in descending order of start.
    pub(crate) async fn list(&self) -> Result<Vec<SandboxView>, ServiceError> {
        let states: HashMap<SandboxId, SandboxState> = self
            .node
            .list()
            .await
            .into_iter()
            .map(|info| (info.id, info.state))
            .collect();
        let records = self.ledger.all().await?.into_iter();
        let views = records.filter_map(|record| {
            let running = is_running(*states.get(&record.id)?)?;
            Some(SandboxView { record, running })
        });
        Ok(views.collect())
    }
}
