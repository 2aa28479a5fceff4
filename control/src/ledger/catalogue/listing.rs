//! Lists of snapshots, page by page.

use pool_api::{SandboxId, TemplateName};
use sqlx::FromRow;

use super::{Ledger, LedgerError, Micros, failed, row::parse};

/// Which snapshots are asked for.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Those taken of this sandbox.
    pub(crate) sandbox: Option<SandboxId>,
    /// Those of this template.
    pub(crate) template: Option<TemplateName>,
    /// Those that this tag means.
    pub(crate) tag: Option<String>,
    /// Those that come after this one.
    pub(crate) after: Option<(Micros, String)>,
    /// So many.
    pub(crate) limit: usize,
}

/// A snapshot, and how it is called.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// The build's id.
    pub(crate) build: String,
    /// When it was taken.
    pub(crate) created_at: Micros,
    /// The template's id.
    pub(crate) template: TemplateName,
    /// The template's name.
    pub(crate) name: Option<TemplateName>,
    /// The tag that means it: the default one if that does.
    pub(crate) tag: String,
}

#[derive(FromRow)]
struct Row {
    build: String,
    created_at: i64,
    template: String,
    name: Option<String>,
    tag: String,
}

impl Ledger {
    /// Snapshots, the one taken last first.
    pub(crate) async fn snapshots(&self, page: &Page) -> Result<Vec<Named>, LedgerError> {
        let after = page.after.as_ref();
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT b.id AS build, b.created_at, b.template, \
             (SELECT min(n.name) FROM names n WHERE n.template = b.template) AS name, \
             (SELECT t.tag FROM tags t WHERE t.template = b.template AND t.build = b.id AND (?3 IS NULL OR t.tag = ?3) \
              ORDER BY t.tag <> 'default', t.tag LIMIT 1) AS tag \
             FROM builds b \
             WHERE (?1 IS NULL OR b.origin = ?1) AND (?2 IS NULL OR b.template = ?2) AND tag IS NOT NULL \
             AND (?4 IS NULL OR (b.created_at, b.id) < (?4, ?5)) \
             ORDER BY b.created_at DESC, b.id DESC LIMIT ?6",
        )
        .bind(page.sandbox.as_ref().map(SandboxId::as_str))
        .bind(page.template.as_ref().map(TemplateName::as_str))
        .bind(page.tag.as_deref())
        .bind(after.map(|(at, _)| at.0))
        .bind(after.map(|(_, build)| build.as_str()))
        .bind(i64::try_from(page.limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("list the snapshots"))?;
        rows.into_iter().map(Named::try_from).collect()
    }
}

impl TryFrom<Row> for Named {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self, LedgerError> {
        let name = row.name.map(|name| parse(&name, &row.build, "name"));
        Ok(Self {
            template: parse(&row.template, &row.build, "template")?,
            name: name.transpose()?,
            build: row.build,
            created_at: Micros(row.created_at),
            tag: row.tag,
        })
    }
}
