//! Templates made of snapshots: their builds, names and tags. Names and tags of the host's templates are here too.
//!
//! A build references a retained snapshot. A build without a tag is deleted; the function that deletes it returns the
//! snapshots that the caller may release.

mod build;
mod changes;
mod snapshots;
mod tag;
mod template;

use pool_api::{SnapshotId, TemplateName};

pub(crate) use self::{
    build::Build,
    snapshots::{NamedSnapshot, SnapshotQuery},
    tag::TagRecord,
    template::{Template, Visibility},
};
use self::{build::BuildRow, tag::TagRow, template::TemplateRow};
use super::{
    Ledger,
    column::parse,
    error::{LedgerError, failed},
};
use crate::{
    ids::{BuildId, TemplateId},
    reference::Tag,
};

impl Ledger {
    /// The template with this name.
    pub(crate) async fn template_named(
        &self,
        name: &TemplateName,
    ) -> Result<Option<TemplateId>, LedgerError> {
        let found: Option<(String,)> = sqlx::query_as("SELECT template FROM names WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("look up template name"))?;
        found
            .map(|(id,)| parse(&id, name.as_str(), "template"))
            .transpose()
    }

    /// Names given to a template of the host.
    pub(crate) async fn names_of(&self, id: &TemplateId) -> Result<Vec<String>, LedgerError> {
        let names: Vec<(String,)> =
            sqlx::query_as("SELECT name FROM names WHERE template = ? ORDER BY name")
                .bind(id.as_str())
                .fetch_all(&self.readers)
                .await
                .map_err(failed("list names of template"))?;
        Ok(names.into_iter().map(|(name,)| name).collect())
    }

    /// The template made of snapshots with this id.
    pub(crate) async fn template(&self, id: &TemplateId) -> Result<Option<Template>, LedgerError> {
        let row: Option<TemplateRow> = sqlx::query_as(
            "SELECT id, (SELECT min(name) FROM names WHERE template = id) AS name, public, created_at, updated_at \
             FROM templates WHERE id = ?",
        )
        .bind(id.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(failed("read template"))?;
        row.map(Template::try_from).transpose()
    }

    /// The tags of a template, in alphabetical order.
    pub(crate) async fn tags(&self, id: &TemplateId) -> Result<Vec<TagRecord>, LedgerError> {
        let rows: Vec<TagRow> = sqlx::query_as(
            "SELECT tag, build, created_at FROM tags WHERE template = ? ORDER BY tag",
        )
        .bind(id.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list tags of template"))?;
        rows.into_iter().map(TagRecord::try_from).collect()
    }

    /// One tag of a template.
    pub(crate) async fn tag(
        &self,
        id: &TemplateId,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, LedgerError> {
        let row: Option<TagRow> = sqlx::query_as(
            "SELECT tag, build, created_at FROM tags WHERE template = ? AND tag = ?",
        )
        .bind(id.as_str())
        .bind(tag.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(failed("look up tag"))?;
        row.map(TagRecord::try_from).transpose()
    }

    /// Reads a build.
    pub(crate) async fn build(&self, id: BuildId) -> Result<Option<Build>, LedgerError> {
        let row: Option<BuildRow> = sqlx::query_as("SELECT * FROM builds WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read build"))?;
        row.map(Build::try_from).transpose()
    }

    /// The builds of a template, newest first.
    pub(crate) async fn builds(&self, id: &TemplateId) -> Result<Vec<Build>, LedgerError> {
        let rows: Vec<BuildRow> = sqlx::query_as(
            "SELECT * FROM builds WHERE template = ? ORDER BY created_at DESC, id DESC",
        )
        .bind(id.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list builds of template"))?;
        rows.into_iter().map(Build::try_from).collect()
    }

    /// Every snapshot that a build references.
    pub(crate) async fn referenced_snapshots(&self) -> Result<Vec<SnapshotId>, LedgerError> {
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT id, snapshot FROM builds")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list referenced snapshots"))?;
        let snapshots = rows.iter();
        snapshots
            .map(|(id, snapshot)| parse(snapshot, id, "snapshot"))
            .collect()
    }

    /// Whether a build references a snapshot.
    pub(crate) async fn is_referenced(&self, snapshot: &SnapshotId) -> Result<bool, LedgerError> {
        let (found,): (bool,) =
            sqlx::query_as("SELECT EXISTS (SELECT 1 FROM builds WHERE snapshot = ?)")
                .bind(snapshot.as_str())
                .fetch_one(&self.readers)
                .await
                .map_err(failed("look up snapshot"))?;
        Ok(found)
    }
}
