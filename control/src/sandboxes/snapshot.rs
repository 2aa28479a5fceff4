//! Snapshots that are promised to be kept.

use pool_api::{SandboxId, SnapshotId, SnapshotScope, TemplateName};
use uuid::Uuid;

use super::{Conflict, Failure, Sandboxes};
use crate::{
    ledger::{Build, Entry, Named},
    reference::{Reference, Tag},
    time::Micros,
};

/// An id of a template that nobody can guess: `t` and 20 characters.
fn new_template() -> Result<TemplateName, Failure> {
    let id = SandboxId::generate(&mut rand::rng());
    let id = id.as_str().get(1..).unwrap_or_default();
    format!("t{id}").parse().map_err(Failure::internal)
}

impl Sandboxes {
    /// Takes a snapshot of a sandbox, and keeps it under this name, or under none.
    pub(crate) async fn snapshot(
        &self,
        id: &SandboxId,
        name: Option<&Reference>,
        keep: SnapshotScope,
    ) -> Result<Named, Failure> {
        let missing = || Failure::NotFound(id.clone());
        let entry = self.ledger.get(id).await?.ok_or_else(missing)?;
        let tag = name.map(Reference::tag_or_default).unwrap_or_default();
        let name = match name {
            Some(name) => Some(self.free_for_snapshots(name).await?),
            None => None,
        };
        let Some(_turn) = self.snapshotting.alone_now(id) else {
            return Err(Conflict::BeingKept(id.clone()).into());
        };
        let _taking = self.keeper.taking().await;
        let taken = self.node.snapshot(id, keep).await?;
        self.promise(&entry, taken.id, taken.scope, name, &tag)
            .await
    }

    async fn promise(
        &self,
        entry: &Entry,
        snapshot: SnapshotId,
        keep: SnapshotScope,
        name: Option<TemplateName>,
        tag: &Tag,
    ) -> Result<Named, Failure> {
        let build = Build {
            id: Uuid::new_v4().to_string(),
            template: new_template()?,
            snapshot: snapshot.clone(),
            keep,
            origin: entry.id.clone(),
            resources: entry.resources,
            created_at: Micros::now(),
        };
        let added = self.ledger.add_build(&build, name.as_ref(), tag).await;
        let (template, dropped) = match (added, &name) {
            (Ok(Some(added)), _) => added,
            (Ok(None), name) => {
                self.keeper.release_snapshot(vec![snapshot]);
                let name = name.clone().unwrap_or(build.template);
                return Err(Conflict::NameTaken(name).into());
            }
            (Err(error), _) => {
                // Nobody will ever be told of it.
                self.keeper.release_snapshot(vec![snapshot]);
                return Err(error.into());
            }
        };
        self.keeper.release_snapshot(dropped);
        Ok(Named {
            build: build.id,
            created_at: build.created_at,
            template,
            name,
            tag: tag.to_string(),
        })
    }

    /// The name, if snapshots may have it.
    async fn free_for_snapshots(&self, name: &Reference) -> Result<TemplateName, Failure> {
        if !name.is_ours() {
            return Err(Failure::Invalid(
                "a snapshot's name must be in your own namespace".to_owned(),
            ));
        }
        if self.host_template(&name.name).await.is_some()
            || self.ledger.template(&name.name).await?.is_some()
        {
            return Err(Failure::Invalid(format!(
                "the name '{}' is taken by another template",
                name.name
            )));
        }
        Ok(name.name.clone())
    }
}
