//! A tag of a template.

use sqlx::FromRow;

use crate::{
    ids::BuildId,
    ledger::{column::parse, error::LedgerError},
    time::Micros,
};

/// A tag and the build that it points to.
#[derive(Debug, Clone)]
pub(crate) struct TagRecord {
    /// The tag.
    pub(crate) tag: String,
    /// The build.
    pub(crate) build: BuildId,
    /// When the tag was assigned to the build.
    pub(crate) created_at: Micros,
}

/// A row, not validated.
#[derive(FromRow)]
pub(super) struct TagRow {
    tag: String,
    build: String,
    created_at: i64,
}

impl TryFrom<TagRow> for TagRecord {
    type Error = LedgerError;

    fn try_from(row: TagRow) -> Result<Self, LedgerError> {
        Ok(Self {
            build: parse(&row.build, &row.tag, "build")?,
            tag: row.tag,
            created_at: Micros(row.created_at),
        })
    }
}
