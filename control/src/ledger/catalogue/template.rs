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
    /// Who may use it.
    pub(crate) visibility: Visibility,
    /// Time of its creation.
    pub(crate) created_at: Micros,
    /// Time of its latest change.
    pub(crate) updated_at: Micros,
}

/// The users of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Its owner.
    Private,
    /// Every user.
    Public,
}

impl Visibility {
    /// Converts the form that requests and the ledger use.
    pub(crate) fn from_public(public: bool) -> Self {
        if public { Self::Public } else { Self::Private }
    }

    /// Whether every user may use the template.
    pub(crate) fn is_public(self) -> bool {
        self == Self::Public
    }
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
            visibility: Visibility::from_public(row.public),
            created_at: Micros(row.created_at),
            updated_at: Micros(row.updated_at),
        })
    }
}
