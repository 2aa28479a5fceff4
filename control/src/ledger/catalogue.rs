//! Templates made of snapshots, their builds, names and tags.
//!
//! A build is a promise: its snapshot is kept. One that no tag means any more is dropped, and who dropped it is told
//! which snapshots may be given up.

mod change;
mod listing;
mod row;

use pool_api::{Resources, SandboxId, SnapshotId, SnapshotScope, TemplateName};
use sqlx::FromRow;

use self::row::{BuildRow, TemplateRow, parse};
use super::{Ledger, LedgerError, failed};
use crate::{reference::Tag, time::Micros};

pub(crate) use self::listing::{Named, Page};

/// A template made of snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// Its id.
    pub(crate) id: TemplateName,
    /// Its name, if it has one.
    pub(crate) name: Option<TemplateName>,
    /// Whether others may use it.
    pub(crate) public: bool,
    /// When it was made.
    pub(crate) created_at: Micros,
    /// When something of it changed.
    pub(crate) updated_at: Micros,
}

/// A snapshot that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    /// A UUID.
    pub(crate) id: String,
    /// Its template's id.
    pub(crate) template: TemplateName,
    /// The snapshot.
    pub(crate) snapshot: SnapshotId,
    /// What it keeps.
    pub(crate) keep: SnapshotScope,
    /// The sandbox it was taken of.
    pub(crate) origin: SandboxId,
    /// What machines made of it have.
    pub(crate) resources: Resources,
    /// When it was taken.
    pub(crate) created_at: Micros,
}

/// A tag, and the build it means.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Tagged {
    /// The tag.
    pub(crate) tag: String,
    /// The build's id.
    pub(crate) build: String,
    created_at: i64,
}

// === impl Tagged ===

impl Tagged {
    /// When the tag was given.
    pub(crate) fn created_at(&self) -> Micros {
        Micros(self.created_at)
    }
}

// === impl Ledger ===

impl Ledger {
    /// The template that has this name.
    pub(crate) async fn named(
        &self,
        name: &TemplateName,
    ) -> Result<Option<TemplateName>, LedgerError> {
        let found: Option<(String,)> = sqlx::query_as("SELECT template FROM names WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look a name up"))?;
        found
            .map(|(id,)| parse(&id, name.as_str(), "template"))
            .transpose()
    }

    /// The names that one of the host's templates was given.
    pub(crate) async fn names_of(&self, id: &TemplateName) -> Result<Vec<String>, LedgerError> {
        let names: Vec<(String,)> =
            sqlx::query_as("SELECT name FROM names WHERE template = ? ORDER BY name")
                .bind(id.as_str())
                .fetch_all(&self.pool)
                .await
                .map_err(failed("read the names of a template"))?;
        Ok(names.into_iter().map(|(name,)| name).collect())
    }

    /// The template made of snapshots that has this id.
    pub(crate) async fn template(
        &self,
        id: &TemplateName,
    ) -> Result<Option<Template>, LedgerError> {
        let row: Option<TemplateRow> = sqlx::query_as(
            "SELECT id, (SELECT min(name) FROM names WHERE template = id) AS name, public, created_at, updated_at \
             FROM templates WHERE id = ?",
        )
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("read a template"))?;
        row.map(Template::try_from).transpose()
    }

    /// The tags of a template, by name.
    pub(crate) async fn tags(&self, id: &TemplateName) -> Result<Vec<Tagged>, LedgerError> {
        sqlx::query_as("SELECT tag, build, created_at FROM tags WHERE template = ? ORDER BY tag")
            .bind(id.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the tags of a template"))
    }

    /// The build of a template that a tag means.
    pub(crate) async fn tagged(
        &self,
        id: &TemplateName,
        tag: &Tag,
    ) -> Result<Option<Tagged>, LedgerError> {
        sqlx::query_as("SELECT tag, build, created_at FROM tags WHERE template = ? AND tag = ?")
            .bind(id.as_str())
            .bind(tag.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look a tag up"))
    }

    /// A build.
    pub(crate) async fn build(&self, id: &str) -> Result<Option<Build>, LedgerError> {
        let row: Option<BuildRow> = sqlx::query_as("SELECT * FROM builds WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a build"))?;
        row.map(Build::try_from).transpose()
    }

    /// The builds of a template, the newest first.
    pub(crate) async fn builds(&self, id: &TemplateName) -> Result<Vec<Build>, LedgerError> {
        let rows: Vec<BuildRow> = sqlx::query_as(
            "SELECT * FROM builds WHERE template = ? ORDER BY created_at DESC, id DESC",
        )
        .bind(id.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the builds of a template"))?;
        rows.into_iter().map(Build::try_from).collect()
    }

    /// Every snapshot that is promised.
    pub(crate) async fn promised(&self) -> Result<Vec<SnapshotId>, LedgerError> {
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT id, snapshot FROM builds")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the snapshots"))?;
        let snapshots = rows.iter();
        snapshots
            .map(|(id, snapshot)| parse(snapshot, id, "snapshot"))
            .collect()
    }

    /// Whether a snapshot is promised.
    pub(crate) async fn is_promised(&self, snapshot: &SnapshotId) -> Result<bool, LedgerError> {
        let (found,): (bool,) =
            sqlx::query_as("SELECT EXISTS (SELECT 1 FROM builds WHERE snapshot = ?)")
                .bind(snapshot.as_str())
                .fetch_one(&self.pool)
                .await
                .map_err(failed("look a snapshot up"))?;
        Ok(found)
    }
}
