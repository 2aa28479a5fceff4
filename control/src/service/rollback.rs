//! Rollback.

use pool_api::{SandboxId, SandboxState};

use super::{SandboxService, templates::ResolvedTemplate};
use crate::{
    error::ServiceError,
    ledger::{Build, StartSource},
    reference::Reference,
    time::Micros,
};

impl SandboxService {
    /// Rolls a sandbox back to one of its own snapshots. A running sandbox keeps its deadline; a paused one gets the
    /// lifetime requested at creation. `snapshot` is the reference as the caller wrote it.
    pub(crate) async fn roll_back(
        &self,
        id: &SandboxId,
        snapshot: &str,
    ) -> Result<(), ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        let build = self.own_build(id, snapshot).await?;
        let _lock = self.locks.exclusive(id).await;
        let mut record = self.ledger.get(id).await?.ok_or_else(missing)?;
        let before = self.node.info(id).await.ok_or_else(missing)?;
        let info = self.node.rollback(id, &build.snapshot).await?;
        if before.state == SandboxState::Running && record.running {
            record.epoch = info.epoch;
            self.record_running(&record, StartSource::Rollback).await
        } else {
            let lifetime = record.settings.lifetime.at_most(self.config.max_lifetime);
            record.start(info.epoch, Micros::now(), lifetime);
            self.record_running(&record, StartSource::Request).await
        }
    }

    /// Resolves a reference to a build whose snapshot was taken of this sandbox.
    async fn own_build(&self, id: &SandboxId, snapshot: &str) -> Result<Build, ServiceError> {
        let missing = || ServiceError::SnapshotNotFound {
            snapshot: snapshot.chars().take(80).collect(),
            sandbox: id.clone(),
        };
        let reference: Reference = snapshot.parse()?;
        let template = match self.resolve(&reference).await {
            Ok(ResolvedTemplate::Snapshots(template)) => template,
            Ok(ResolvedTemplate::Host(_)) | Err(ServiceError::TemplateNotFound { .. }) => {
                return Err(missing());
            }
            Err(error) => return Err(error),
        };
        let tag = reference.tag_or_default();
        match self.build_with_tag(&template, &tag).await {
            Ok(build) if build.origin == *id => Ok(build),
            Ok(_) | Err(ServiceError::TagNotFound { .. }) => Err(missing()),
            Err(error) => Err(error),
        }
    }
}
