//! Templates: those of the host's artefacts, and those made of snapshots.

use pool_api::{Origin, TemplateInfo, TemplateName};
use uuid::Uuid;

use super::{Conflict, Failure, Sandboxes};
use crate::{
    ledger::{Build, Template},
    reference::{Reference, Tag},
};

/// A template that was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// Of the host's artefacts.
    Host(TemplateInfo),
    /// Made of snapshots.
    Snapshots(Template),
}

/// What a sandbox is made of.
#[derive(Debug)]
pub(super) struct Base {
    /// What the host starts from.
    pub(super) origin: Origin,
    /// The template's id.
    pub(super) template: TemplateName,
    /// What callers call it.
    pub(super) alias: Option<String>,
}

impl Found {
    /// Its id.
    pub(crate) fn id(&self) -> &TemplateName {
        match self {
            Self::Host(info) => &info.name,
            Self::Snapshots(template) => &template.id,
        }
    }
}

/// The name that a host's build goes by: a UUID, of its snapshot.
pub(crate) fn host_build(info: &TemplateInfo) -> Uuid {
    let digest = info.snapshot.as_ref().and_then(|id| id.as_str().get(..32));
    let digest = digest.and_then(|digits| Uuid::try_parse(digits).ok());
    digest.map_or(Uuid::nil(), |digest| {
        uuid::Builder::from_custom_bytes(digest.into_bytes()).into_uuid()
    })
}

impl Sandboxes {
    /// One of the host's templates.
    pub(super) async fn host_template(&self, name: &TemplateName) -> Option<TemplateInfo> {
        let templates = self.node.templates().await;
        templates.into_iter().find(|info| info.name == *name)
    }

    /// The template a reference names, whatever tag it has.
    pub(crate) async fn find(&self, reference: &Reference) -> Result<Found, Failure> {
        let missing = || Failure::no_template(&reference.name);
        if let Some(info) = self.host_template(&reference.name).await {
            return Ok(Found::Host(info));
        }
        if !reference.is_ours() {
            return Err(missing());
        }
        if let Some(template) = self.ledger.template(&reference.name).await? {
            return Ok(Found::Snapshots(template));
        }
        let id = self
            .ledger
            .named(&reference.name)
            .await?
            .ok_or_else(missing)?;
        if let Some(template) = self.ledger.template(&id).await? {
            return Ok(Found::Snapshots(template));
        }
        let info = self.host_template(&id).await;
        info.map(Found::Host).ok_or_else(missing)
    }

    /// As [`Sandboxes::find`], if it has the tag that is meant.
    pub(crate) async fn find_tagged(&self, reference: &Reference) -> Result<Found, Failure> {
        let found = self.find(reference).await?;
        match (&found, &reference.tag) {
            (_, None) => {}
            (Found::Host(info), Some(tag)) => self.check_host_tag(info, tag).await?,
            (Found::Snapshots(template), Some(tag)) => {
                self.build_of(template, tag).await?;
            }
        }
        Ok(found)
    }

    /// The build of a template made of snapshots that a tag means.
    pub(super) async fn build_of(&self, template: &Template, tag: &Tag) -> Result<Build, Failure> {
        let missing = || {
            let name = template.name.as_ref().unwrap_or(&template.id);
            Failure::no_tag(name, tag)
        };
        let tagged = self.ledger.tagged(&template.id, tag).await?;
        let tagged = tagged.ok_or_else(missing)?;
        let build = self.ledger.build(&tagged.build).await?;
        build.ok_or_else(missing)
    }

    /// Sees that one of the host's templates has this tag, on the build that is there.
    pub(super) async fn check_host_tag(
        &self,
        info: &TemplateInfo,
        tag: &Tag,
    ) -> Result<(), Failure> {
        if tag.is_default() {
            return Ok(());
        }
        let tagged = self.ledger.tagged(&info.name, tag).await?;
        tagged
            .filter(|tagged| tagged.build == host_build(info).to_string())
            .map(drop)
            .ok_or_else(|| Failure::no_tag(&info.name, tag))
    }

    /// What a sandbox made of this starts from.
    pub(super) async fn base(&self, reference: &Reference) -> Result<Base, Failure> {
        let tag = reference.tag_or_default();
        match self.find(reference).await? {
            Found::Host(info) => {
                self.check_host_tag(&info, &tag).await?;
                Ok(Base {
                    origin: Origin::Template(info.name.clone()),
                    alias: Some(info.name.to_string()),
                    template: info.name,
                })
            }
            Found::Snapshots(template) => {
                let build = self.build_of(&template, &tag).await?;
                Ok(Base {
                    origin: Origin::Snapshot(build.snapshot),
                    alias: template.name.map(String::from),
                    template: template.id,
                })
            }
        }
    }

    /// Deletes a template made of snapshots, or what one tag of a template means.
    pub(crate) async fn delete_template(&self, reference: &Reference) -> Result<(), Failure> {
        let found = self.find(reference).await?;
        let missing = || match &reference.tag {
            Some(tag) => Failure::no_tag(&reference.name, tag),
            None => Failure::no_template(&reference.name),
        };
        let dropped = match (&found, &reference.tag) {
            (Found::Host(info), None) => {
                return Err(Failure::Invalid(format!(
                    "template '{}' belongs to the host and cannot be deleted",
                    info.name
                )));
            }
            (Found::Host(info), Some(tag)) if tag.is_default() => {
                return Err(Failure::Invalid(format!(
                    "template '{}' belongs to the host and cannot be deleted",
                    info.name
                )));
            }
            (_, Some(tag)) => {
                let tag = std::slice::from_ref(tag);
                self.ledger.untag(found.id(), tag).await?
            }
            (_, None) => self.ledger.remove_template(found.id()).await?,
        };
        self.keeper.release_snapshot(dropped.ok_or_else(missing)?);
        Ok(())
    }

    /// Gives a template another name, or takes it.
    pub(crate) async fn rename(
        &self,
        reference: &Reference,
        name: Option<&TemplateName>,
    ) -> Result<Found, Failure> {
        let found = self.find(reference).await?;
        if let Some(name) = name {
            let taken = self.host_template(name).await.is_some()
                || self.ledger.template(name).await?.is_some()
                || !self.ledger.rename(found.id(), Some(name)).await?;
            if taken {
                return Err(Conflict::NameTaken(name.clone()).into());
            }
        } else {
            self.ledger.rename(found.id(), None).await?;
        }
        self.find(&Reference {
            namespace: None,
            name: found.id().clone(),
            tag: None,
        })
        .await
    }

    /// Says whether others may use a template.
    pub(crate) async fn set_public(
        &self,
        reference: &Reference,
        public: bool,
    ) -> Result<Found, Failure> {
        let found = self.find(reference).await?;
        match &found {
            Found::Host(info) if !public => Err(Failure::Invalid(format!(
                "template '{}' belongs to the host and is always public",
                info.name
            ))),
            Found::Host(_) => Ok(found),
            Found::Snapshots(template) => {
                self.ledger.set_public(&template.id, public).await?;
                Ok(found)
            }
        }
    }
}
