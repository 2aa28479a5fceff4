//! Sandboxes as callers see them.

use pool_api::{Broken, BrokenObject, SandboxId, SandboxState};

use super::SandboxService;
use crate::{
    error::ServiceError,
    ledger::{SandboxQuery, SandboxRecord},
};

/// A record with the present state of its sandbox on the host.
#[derive(Debug, Clone)]
pub(crate) struct SandboxView {
    /// The record.
    pub(crate) record: SandboxRecord,
    /// Whether it runs or is starting; otherwise it is paused or pausing.
    pub(crate) running: bool,
    /// The last failure on the host, or the reason why its files cannot be read.
    pub(crate) last_error: Option<String>,
}

/// A page of sandboxes.
#[derive(Debug)]
pub(crate) struct SandboxPage {
    pub(crate) views: Vec<SandboxView>,
    /// Whether there are more.
    pub(crate) has_more: bool,
}

/// Whether a sandbox counts as running. `None` if it does not exist any more.
fn is_running(state: SandboxState) -> Option<bool> {
    match state {
        SandboxState::Starting | SandboxState::Running => Some(true),
        SandboxState::Pausing | SandboxState::Paused => Some(false),
        SandboxState::Stopping | SandboxState::Stopped(_) => None,
    }
}

/// Records that are read at once.
const CHUNK: usize = 200;

impl SandboxService {
    /// Looks up a sandbox.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<SandboxView, ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let record = self.ledger.get(id).await?.ok_or_else(missing)?;
        self.view(record).await.ok_or_else(missing)
    }

    /// Adds the state on the host to a record; `None` if its sandbox does not exist any more.
    async fn view(&self, record: SandboxRecord) -> Option<SandboxView> {
        match self.node.info(&record.id).await {
            Some(info) => Some(SandboxView {
                running: is_running(info.state)?,
                last_error: info.last_error,
                record,
            }),
            None => Some(SandboxView {
                last_error: Some(self.broken_reason(&record.id).await?),
                running: false,
                record,
            }),
        }
    }

    /// Returns why a sandbox's files cannot be read; `None` if it is not broken.
    pub(super) async fn broken_reason(&self, id: &SandboxId) -> Option<String> {
        let is_it =
            |broken: &Broken| matches!(&broken.object, BrokenObject::Sandbox(of) if of == id);
        let broken = self.node.broken().await;
        broken.into_iter().find(is_it).map(|broken| broken.reason)
    }

    /// Lists up to `limit` sandboxes. The memory that it takes does not depend on their number.
    pub(crate) async fn list(
        &self,
        mut query: SandboxQuery,
        limit: usize,
    ) -> Result<SandboxPage, ServiceError> {
        let mut views = Vec::new();
        loop {
            let page = self.ledger.page(&query, CHUNK).await?;
            for record in page.records {
                let Some(view) = self.view(record).await else {
                    continue;
                };
                // The host may know of a transition that the ledger has not recorded yet.
                if query.running.is_some_and(|running| running != view.running) {
                    continue;
                }
                if views.len() == limit {
                    let has_more = true;
                    return Ok(SandboxPage { views, has_more });
                }
                views.push(view);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => {
                    let has_more = false;
                    return Ok(SandboxPage { views, has_more });
                }
            }
        }
    }

    /// Counts the running sandboxes that match the other filters.
    pub(crate) async fn count_running(&self, query: &SandboxQuery) -> Result<usize, ServiceError> {
        Ok(self.ledger.count_running(query).await?)
    }
}
