//! Tags of templates.

use super::{SandboxService, templates::ResolvedTemplate};
use crate::{
    error::ServiceError,
    ids::BuildId,
    ledger::TagRecord,
    reference::{Reference, Tag},
    time::Micros,
};

impl SandboxService {
    /// Lists the tags of a template in alphabetical order. The default tag of a host template always points to its build.
    pub(crate) async fn tags(
        &self,
        template: &ResolvedTemplate,
    ) -> Result<Vec<TagRecord>, ServiceError> {
        let mut tags = self.ledger.tags(&template.id()).await?;
        if let ResolvedTemplate::Host(info) = template {
            let build = BuildId::of_host_template(info);
            // Tags of earlier builds are void.
            tags.retain(|tag| tag.build == build);
            tags.push(TagRecord {
                tag: Tag::default(),
                build,
                created_at: info.built_at.map_or_else(Micros::now, Micros::from),
            });
            tags.sort_by(|a, b| a.tag.cmp(&b.tag));
        }
        Ok(tags)
    }

    /// Assigns tags to the build that a reference names. Returns that build.
    pub(crate) async fn assign_tags(
        &self,
        target: &Reference,
        tags: &[Tag],
    ) -> Result<BuildId, ServiceError> {
        let template = self.resolve(target).await?;
        let tag = target.tag_or_default();
        let build = match &template {
            ResolvedTemplate::Host(info) => {
                self.check_host_tag(info, &tag).await?;
                if tags.iter().any(Tag::is_default) {
                    return Err(ServiceError::Invalid(format!(
                        "the default tag of template '{}' belongs to the host",
                        info.name
                    )));
                }
                BuildId::of_host_template(info)
            }
            ResolvedTemplate::Snapshots(template) => self.build_with_tag(template, &tag).await?.id,
        };
        let released = self.ledger.assign_tags(&template.id(), tags, build).await?;
        self.retention.release(released);
        Ok(build)
    }

    /// Removes tags of a template: all of them, or none if one does not exist.
    pub(crate) async fn remove_tags(
        &self,
        target: &Reference,
        tags: &[Tag],
    ) -> Result<(), ServiceError> {
        if tags.iter().any(Tag::is_default) {
            return Err(ServiceError::Invalid(
                "the default tag cannot be deleted".to_owned(),
            ));
        }
        let id = self.resolve(target).await?.id();
        let existing = self.ledger.tags(&id).await?;
        let missing = |tag: &&Tag| !existing.iter().any(|known| known.tag == **tag);
        if let Some(tag) = tags.iter().find(missing) {
            return Err(ServiceError::tag_not_found(&target.name, tag));
        }
        let released = self.ledger.remove_tags(&id, tags).await?;
        self.retention.release(released.unwrap_or_default());
        Ok(())
    }
}
