//! Tags of templates.

use super::{Failure, Found, Sandboxes, templates::host_build};
use crate::{
    reference::{Reference, Tag},
    time::Micros,
};

/// A tag as callers see it.
#[derive(Debug, Clone)]
pub(crate) struct TagSeen {
    /// The tag.
    pub(crate) tag: String,
    /// The build it means.
    pub(crate) build: String,
    /// When it was given.
    pub(crate) created_at: Micros,
}

impl Sandboxes {
    /// The tags of a template, by name.
    pub(crate) async fn tags(&self, found: &Found) -> Result<Vec<TagSeen>, Failure> {
        let rows = self.ledger.tags(found.id()).await?.into_iter();
        let given = rows.map(|tagged| TagSeen {
            created_at: tagged.created_at(),
            tag: tagged.tag,
            build: tagged.build,
        });
        match found {
            Found::Snapshots(_) => Ok(given.collect()),
            Found::Host(info) => {
                let build = host_build(info).to_string();
                let own = TagSeen {
                    tag: Tag::default().to_string(),
                    build: build.clone(),
                    created_at: info.built_at.map_or_else(Micros::now, Micros::from),
                };
                // Tags of an earlier build mean nothing any more.
                let present = given.filter(|seen| seen.build == build);
                let mut seen: Vec<TagSeen> = present.chain([own]).collect();
                seen.sort_by(|a, b| a.tag.cmp(&b.tag));
                Ok(seen)
            }
        }
    }

    /// Lets tags mean the build that a reference names; that build.
    pub(crate) async fn tag(&self, target: &Reference, tags: &[Tag]) -> Result<String, Failure> {
        let found = self.find(target).await?;
        let tag = target.tag_or_default();
        let build = match &found {
            Found::Host(info) => {
                self.check_host_tag(info, &tag).await?;
                if tags.iter().any(Tag::is_default) {
                    return Err(Failure::Invalid(format!(
                        "the default tag of template '{}' belongs to the host",
                        info.name
                    )));
                }
                host_build(info).to_string()
            }
            Found::Snapshots(template) => self.build_of(template, &tag).await?.id,
        };
        let dropped = self.ledger.assign(found.id(), tags, &build).await?;
        self.keeper.release_snapshot(dropped);
        Ok(build)
    }

    /// Takes tags from a template.
    pub(crate) async fn untag(&self, target: &Reference, tags: &[Tag]) -> Result<(), Failure> {
        if tags.iter().any(Tag::is_default) {
            return Err(Failure::Invalid(
                "the default tag cannot be deleted".to_owned(),
            ));
        }
        let found = self.find(target).await?;
        let there = self.ledger.tags(found.id()).await?;
        let missing = |tag: &&Tag| !there.iter().any(|known| known.tag == tag.as_str());
        if let Some(tag) = tags.iter().find(missing) {
            return Err(Failure::no_tag(&target.name, tag));
        }
        let dropped = self.ledger.untag(found.id(), tags).await?;
        self.keeper.release_snapshot(dropped.unwrap_or_default());
        Ok(())
    }
}
