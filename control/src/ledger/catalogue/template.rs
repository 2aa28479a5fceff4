//! A template made of snapshots.

use pool_api::TemplateName;
use sqlx::FromRow;

use crate::{
    ids::TemplateId,
    ledger::{column::parse, error::LedgerError},
    time::Micros,
};

/// A template made of snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// Its id.
    pub(crate) id: TemplateId,
    /// Its name, if it has one.
    pub(crate) name: Option<TemplateName>,
    /// Whether other users may use it.
    pub(crate) public: bool,
    /// Time of its creation.
    pub(crate) created_at: Micros,
    /// Time of its latest change.
    pub(crate) updated_at: Micros,
}

/// A row, not validated.
#[derive(FromRow)]
pub(super) struct TemplateRow {
    id: String,
    name: Option<String>,
    public: bool,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<TemplateRow> for Template {
    type Error = LedgerError;

    fn try_from(row: TemplateRow) -> Result<Self, LedgerError> {
        let name = row.name.map(|name| parse(&name, &row.id, "name"));
        Ok(Self {
            id: parse(&row.id, &row.id, "id")?,
            name: name.transpose()?,
            public: row.public,
            created_at: Micros(row.created_at),
            updated_at: Micros(row.updated_at),
        })
    }
}
