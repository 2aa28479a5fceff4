//! Snapshots: taken and listed. They are deleted as templates.

use pool_api::{SandboxId, SnapshotScope, TakenSnapshot, TemplateName};

use super::SandboxService;
use crate::{
    error::{Conflict, ServiceError},
    ids::{BuildId, TemplateId},
    ledger::{Build, NamedSnapshot, SandboxRecord, SnapshotQuery},
    reference::{Reference, Tag},
    time::Micros,
};

impl SandboxService {
    /// Takes a snapshot of a sandbox and retains it as a build: of the template with this name, or of an unnamed one.
    pub(crate) async fn snapshot(
        &self,
        id: &SandboxId,
        name: Option<&Reference>,
        scope: SnapshotScope,
    ) -> Result<NamedSnapshot, ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let record = self.ledger.get(id).await?.ok_or_else(missing)?;
        let tag = name.map(Reference::tag_or_default).unwrap_or_default();
        let name = match name {
            Some(name) => Some(self.snapshot_name(name).await?),
            None => None,
        };
        let Some(_lock) = self.snapshot_locks.try_exclusive(id) else {
            return Err(Conflict::SnapshotInProgress(id.clone()).into());
        };
        let _guard = self.retention.lock_shared().await;
        let taken = self.node.snapshot(id, scope).await?;
        self.record_snapshot(&record, taken, name, &tag).await
    }

    /// Lists snapshots, newest first.
    pub(crate) async fn list_snapshots(
        &self,
        query: &SnapshotQuery,
    ) -> Result<Vec<NamedSnapshot>, ServiceError> {
        Ok(self.ledger.snapshots(query).await?)
    }

    async fn record_snapshot(
        &self,
        sandbox: &SandboxRecord,
        taken: TakenSnapshot,
        name: Option<TemplateName>,
        tag: &Tag,
    ) -> Result<NamedSnapshot, ServiceError> {
        let build = Build {
            id: BuildId::generate(),
            template: TemplateId::generate().map_err(ServiceError::internal)?,
            snapshot: taken.id.clone(),
            scope: taken.scope,
            origin: sandbox.id.clone(),
            resources: sandbox.resources,
            created_at: Micros::now(),
        };
        let (template, released) = match self.ledger.add_build(&build, name.as_ref(), tag).await {
            Ok(Some(added)) => added,
            Ok(None) => {
                self.retention.release(vec![taken.id]);
                let name = name.unwrap_or_else(|| build.template.as_name().clone());
                return Err(Conflict::NameTaken(name).into());
            }
            Err(error) => {
                self.retention.release(vec![taken.id]);
                return Err(error.into());
            }
        };
        self.retention.release(released);
        Ok(NamedSnapshot {
            build: build.id,
            created_at: build.created_at,
            template,
            name,
            tag: tag.clone(),
        })
    }

    /// The name of a reference, if a template made of snapshots may have it.
    async fn snapshot_name(&self, reference: &Reference) -> Result<TemplateName, ServiceError> {
        let name = &reference.name;
        if !reference.is_local() {
            return Err(ServiceError::Invalid(
                "a snapshot's name must be in your own namespace".to_owned(),
            ));
        }
        if self.host_template(name).await.is_some()
            || self.ledger.template(&name.clone().into()).await?.is_some()
        {
            return Err(ServiceError::Invalid(format!(
                "the name '{name}' is taken by another template"
            )));
        }
        Ok(name.clone())
    }
}
