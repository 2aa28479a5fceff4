//! Templates: those that the host builds from artefacts, and those made of snapshots.

use pool_api::{Origin, TemplateInfo, TemplateName};

use super::SandboxService;
use crate::{
    error::{Conflict, ServiceError},
    ids::{BuildId, TemplateId},
    ledger::{Build, Template, Visibility},
    reference::{Reference, Tag},
};

/// The template that a reference names.
#[derive(Debug)]
pub(crate) enum ResolvedTemplate {
    /// A template of the host.
    Host(TemplateInfo),
    /// A template made of snapshots.
    Snapshots(Template),
}

/// What a new sandbox starts from.
#[derive(Debug)]
pub(super) struct CreateSource {
    /// The snapshot or host template.
    pub(super) origin: Origin,
    /// The template.
    pub(super) template: TemplateId,
    /// The template's name.
    pub(super) alias: Option<String>,
}

impl ResolvedTemplate {
    /// The template's id.
    pub(crate) fn id(&self) -> TemplateId {
        match self {
            Self::Host(info) => info.name.clone().into(),
            Self::Snapshots(template) => template.id.clone(),
        }
    }

    /// Who may use the template.
    pub(crate) fn visibility(&self) -> Visibility {
        match self {
            Self::Host(_) => Visibility::Public,
            Self::Snapshots(template) => template.visibility,
        }
    }
}

// === Queries ===

impl SandboxService {
    /// Lists the host's templates.
    pub(crate) async fn host_templates(&self) -> Vec<TemplateInfo> {
        self.node.templates().await
    }

    /// Looks up a template of the host.
    pub(super) async fn host_template(&self, name: &TemplateName) -> Option<TemplateInfo> {
        let templates = self.node.templates().await;
        templates.into_iter().find(|info| info.name == *name)
    }

    /// Lists the names given to a template of the host.
    pub(crate) async fn names_of(&self, id: &TemplateId) -> Result<Vec<String>, ServiceError> {
        Ok(self.ledger.names_of(id).await?)
    }

    /// Lists the builds of a template made of snapshots, newest first.
    pub(crate) async fn builds(&self, id: &TemplateId) -> Result<Vec<Build>, ServiceError> {
        Ok(self.ledger.builds(id).await?)
    }

    /// Resolves a reference, ignoring its tag.
    pub(crate) async fn resolve(
        &self,
        reference: &Reference,
    ) -> Result<ResolvedTemplate, ServiceError> {
        let missing = || ServiceError::template_not_found(&reference.name);
        if let Some(info) = self.host_template(&reference.name).await {
            return Ok(ResolvedTemplate::Host(info));
        }
        if !reference.is_local() {
            return Err(missing());
        }
        let as_id = TemplateId::from(reference.name.clone());
        if let Some(template) = self.ledger.template(&as_id).await? {
            return Ok(ResolvedTemplate::Snapshots(template));
        }
        let id = self.ledger.template_named(&reference.name).await?;
        let id = id.ok_or_else(missing)?;
        if let Some(template) = self.ledger.template(&id).await? {
            return Ok(ResolvedTemplate::Snapshots(template));
        }
        let info = self.host_template(id.as_name()).await;
        info.map(ResolvedTemplate::Host).ok_or_else(missing)
    }

    /// Resolves a reference and checks that the template has its tag.
    pub(crate) async fn resolve_tagged(
        &self,
        reference: &Reference,
    ) -> Result<ResolvedTemplate, ServiceError> {
        let resolved = self.resolve(reference).await?;
        match (&resolved, &reference.tag) {
            (_, None) => {}
            (ResolvedTemplate::Host(info), Some(tag)) => self.check_host_tag(info, tag).await?,
            (ResolvedTemplate::Snapshots(template), Some(tag)) => {
                self.build_with_tag(template, tag).await?;
            }
        }
        Ok(resolved)
    }

    /// The build that a tag of a template points to.
    pub(super) async fn build_with_tag(
        &self,
        template: &Template,
        tag: &Tag,
    ) -> Result<Build, ServiceError> {
        let missing = || {
            let name = template.name.as_ref();
            ServiceError::tag_not_found(name.unwrap_or(template.id.as_name()), tag)
        };
        let tagged = self.ledger.tag(&template.id, tag).await?;
        let tagged = tagged.ok_or_else(missing)?;
        let build = self.ledger.build(tagged.build).await?;
        build.ok_or_else(missing)
    }

    /// Checks that a template of the host has a tag on its present build.
    pub(super) async fn check_host_tag(
        &self,
        info: &TemplateInfo,
        tag: &Tag,
    ) -> Result<(), ServiceError> {
        if tag.is_default() {
            return Ok(());
        }
        let tagged = self.ledger.tag(&info.name.clone().into(), tag).await?;
        tagged
            .filter(|tagged| tagged.build == BuildId::of_host_template(info))
            .map(drop)
            .ok_or_else(|| ServiceError::tag_not_found(&info.name, tag))
    }

    /// Resolves a reference to what a new sandbox starts from.
    pub(super) async fn create_source(
        &self,
        reference: &Reference,
    ) -> Result<CreateSource, ServiceError> {
        let tag = reference.tag_or_default();
        match self.resolve(reference).await? {
            ResolvedTemplate::Host(info) => {
                self.check_host_tag(&info, &tag).await?;
                Ok(CreateSource {
                    origin: Origin::Template(info.name.clone()),
                    alias: Some(info.name.to_string()),
                    template: info.name.into(),
                })
            }
            ResolvedTemplate::Snapshots(template) => {
                let build = self.build_with_tag(&template, &tag).await?;
                Ok(CreateSource {
                    origin: Origin::Snapshot(build.snapshot),
                    alias: template.name.map(String::from),
                    template: template.id,
                })
            }
        }
    }
}

// === Changes ===

impl SandboxService {
    /// Builds a template of the host again, unless it is that of the host's artefacts. Other names are unknown: the host
    /// has artefacts for its own templates only, and those cannot be deleted.
    pub(crate) async fn build_template(
        &self,
        name: &TemplateName,
    ) -> Result<TemplateInfo, ServiceError> {
        let as_id = TemplateId::from(name.clone());
        if self.ledger.template_named(name).await?.is_some()
            || self.ledger.template(&as_id).await?.is_some()
        {
            return Err(Conflict::NameTaken(name.clone()).into());
        }
        if self.host_template(name).await.is_none() {
            return Err(ServiceError::template_not_found(name));
        }
        Ok(self.node.build_template(name).await?)
    }

    /// Deletes a template made of snapshots, or one tag of any template.
    pub(crate) async fn delete_template(&self, reference: &Reference) -> Result<(), ServiceError> {
        let template = self.resolve(reference).await?;
        let missing = || match &reference.tag {
            Some(tag) => ServiceError::tag_not_found(&reference.name, tag),
            None => ServiceError::template_not_found(&reference.name),
        };
        let released = match (&template, &reference.tag) {
            (ResolvedTemplate::Host(info), tag) if tag.as_ref().is_none_or(Tag::is_default) => {
                return Err(ServiceError::Invalid(format!(
                    "template '{}' belongs to the host and cannot be deleted",
                    info.name
                )));
            }
            (_, Some(tag)) => {
                let tags = std::slice::from_ref(tag);
                self.ledger.remove_tags(&template.id(), tags).await?
            }
            (_, None) => self.ledger.remove_template(&template.id()).await?,
        };
        self.retention.release(released.ok_or_else(missing)?);
        Ok(())
    }

    /// Gives a template another name, or removes its name.
    pub(crate) async fn rename(
        &self,
        reference: &Reference,
        name: Option<&TemplateName>,
    ) -> Result<ResolvedTemplate, ServiceError> {
        let id = self.resolve(reference).await?.id();
        if let Some(name) = name {
            let taken = self.host_template(name).await.is_some()
                || self.ledger.template(&name.clone().into()).await?.is_some()
                || !self.ledger.rename(&id, Some(name)).await?;
            if taken {
                return Err(Conflict::NameTaken(name.clone()).into());
            }
        } else {
            self.ledger.rename(&id, None).await?;
        }
        self.resolve(&Reference::untagged(id.as_name().clone()))
            .await
    }

    /// Sets the visibility of a template. Templates of the host are always public.
    pub(crate) async fn set_visibility(
        &self,
        reference: &Reference,
        visibility: Visibility,
    ) -> Result<ResolvedTemplate, ServiceError> {
        let resolved = self.resolve(reference).await?;
        match &resolved {
            ResolvedTemplate::Host(info) if !visibility.is_public() => {
                Err(ServiceError::Invalid(format!(
                    "template '{}' belongs to the host and is always public",
                    info.name
                )))
            }
            ResolvedTemplate::Host(_) => Ok(resolved),
            ResolvedTemplate::Snapshots(template) => {
                self.ledger.set_visibility(&template.id, visibility).await?;
                Ok(resolved)
            }
        }
    }
}
