//! A tag of a template.

use sqlx::FromRow;

use crate::{
    ids::BuildId,
    ledger::{column::parse, error::LedgerError},
    reference::Tag,
    time::Micros,
};

/// A tag and the build that it points to.
#[derive(Debug, Clone)]
pub(crate) struct TagRecord {
    /// The tag.
    pub(crate) tag: Tag,
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
            tag: parse(&row.tag, &row.tag, "tag")?,
            build: parse(&row.build, &row.tag, "build")?,
            created_at: Micros(row.created_at),
        })
    }
}
