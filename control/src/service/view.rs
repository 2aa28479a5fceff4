//! Sandboxes as callers see them.

use std::collections::HashMap;

use pool_api::{BrokenObject, SandboxId, SandboxInfo, SandboxState};

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

/// Why the files of each broken sandbox cannot be read.
pub(super) type BrokenReasons = HashMap<SandboxId, String>;

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

impl SandboxView {
    /// `None` if the sandbox does not exist any more.
    fn of(record: SandboxRecord, info: SandboxInfo) -> Option<Self> {
        Some(Self {
            running: is_running(info.state)?,
            last_error: info.last_error,
            record,
        })
    }
}

/// Records that are read at once.
const CHUNK: usize = 200;

impl SandboxService {
    /// Looks up a sandbox.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<SandboxView, ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let record = self.ledger.get(id).await?.ok_or_else(missing)?;
        self.view(record, &mut None).await.ok_or_else(missing)
    }

    /// Adds the state on the host to a record; `None` if its sandbox does not exist any more. `broken` is filled when it
    /// is first needed: asking the host for it reads the files of every broken sandbox again.
    async fn view(
        &self,
        record: SandboxRecord,
        broken: &mut Option<BrokenReasons>,
    ) -> Option<SandboxView> {
        if let Some(info) = self.node.info(&record.id).await {
            return SandboxView::of(record, info);
        }
        if broken.is_none() {
            *broken = Some(self.broken_reasons().await);
        }
        match broken.as_ref().and_then(|reasons| reasons.get(&record.id)) {
            Some(reason) => Some(SandboxView {
                last_error: Some(reason.clone()),
                running: false,
                record,
            }),
            // It may have recovered just now.
            None => SandboxView::of(record.clone(), self.node.info(&record.id).await?),
        }
    }

    /// Returns the sandboxes whose files cannot be read. Those that can be read again are listed by the host from now on.
    pub(super) async fn broken_reasons(&self) -> BrokenReasons {
        let broken = self.node.broken().await.into_iter();
        let sandboxes = broken.filter_map(|broken| match broken.object {
            BrokenObject::Sandbox(id) => Some((id, broken.reason)),
            BrokenObject::Snapshot(_) => None,
        });
        sandboxes.collect()
    }

    /// Lists up to `limit` sandboxes. The memory that it takes does not depend on their number.
    pub(crate) async fn list(
        &self,
        mut query: SandboxQuery,
        limit: usize,
    ) -> Result<SandboxPage, ServiceError> {
        let mut views = Vec::new();
        let mut broken = None;
        loop {
            let page = self.ledger.page(&query, CHUNK).await?;
            for record in page.records {
                let Some(view) = self.view(record, &mut broken).await else {
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
