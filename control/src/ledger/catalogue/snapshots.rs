//! Lists of snapshots, paged.

use pool_api::{SandboxId, TemplateName};
use sqlx::FromRow;

use crate::{
    ids::{BuildId, TemplateId},
    ledger::{
        Ledger,
        column::parse,
        error::{LedgerError, failed},
    },
    reference::Tag,
    time::Micros,
};

/// Filters of a list of snapshots.
#[derive(Debug, Default)]
pub(crate) struct SnapshotQuery {
    /// Only snapshots of this sandbox.
    pub(crate) sandbox: Option<SandboxId>,
    /// Only snapshots of this template.
    pub(crate) template: Option<TemplateId>,
    /// Only snapshots with this tag.
    pub(crate) tag: Option<Tag>,
    /// Only snapshots after this time and build id, in the order of the list.
    pub(crate) after: Option<(Micros, String)>,
    /// Snapshots at most.
    pub(crate) limit: usize,
}

/// A snapshot with the names that refer to it.
#[derive(Debug, Clone)]
pub(crate) struct NamedSnapshot {
    /// The build.
    pub(crate) build: BuildId,
    /// When it was taken.
    pub(crate) created_at: Micros,
    /// The template.
    pub(crate) template: TemplateId,
    /// The template's name.
    pub(crate) name: Option<TemplateName>,
    /// A tag of the build: the default tag if it has that one.
    pub(crate) tag: Tag,
}

/// A row, not validated.
#[derive(FromRow)]
struct SnapshotRow {
    build: String,
    created_at: i64,
    template: String,
    name: Option<String>,
    tag: String,
}

impl Ledger {
    /// Lists snapshots, newest first.
    pub(crate) async fn snapshots(
        &self,
        query: &SnapshotQuery,
    ) -> Result<Vec<NamedSnapshot>, LedgerError> {
        let after = query.after.as_ref();
        let rows: Vec<SnapshotRow> = sqlx::query_as(
            "SELECT b.id AS build, b.created_at, b.template, \
             (SELECT min(n.name) FROM names n WHERE n.template = b.template) AS name, \
             (SELECT t.tag FROM tags t WHERE t.template = b.template AND t.build = b.id AND (?3 IS NULL OR t.tag = ?3) \
              ORDER BY t.tag <> 'default', t.tag LIMIT 1) AS tag \
             FROM builds b \
             WHERE (?1 IS NULL OR b.origin = ?1) AND (?2 IS NULL OR b.template = ?2) AND tag IS NOT NULL \
             AND (?4 IS NULL OR (b.created_at, b.id) < (?4, ?5)) \
             ORDER BY b.created_at DESC, b.id DESC LIMIT ?6",
        )
        .bind(query.sandbox.as_ref().map(SandboxId::as_str))
        .bind(query.template.as_ref().map(TemplateId::as_str))
        .bind(query.tag.as_ref().map(Tag::as_str))
        .bind(after.map(|(at, _)| at.0))
        .bind(after.map(|(_, build)| build.as_str()))
        .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list snapshots"))?;
        rows.into_iter().map(NamedSnapshot::try_from).collect()
    }
}

impl TryFrom<SnapshotRow> for NamedSnapshot {
    type Error = LedgerError;

    fn try_from(row: SnapshotRow) -> Result<Self, LedgerError> {
        let name = row.name.map(|name| parse(&name, &row.build, "name"));
        Ok(Self {
            template: parse(&row.template, &row.build, "template")?,
            name: name.transpose()?,
            build: parse(&row.build, &row.build, "id")?,
            created_at: Micros(row.created_at),
            tag: parse(&row.tag, &row.build, "tag")?,
        })
    }
}
