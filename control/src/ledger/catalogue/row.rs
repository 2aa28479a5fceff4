//! Templates and builds as they are in the database; not trusted.

use pool_api::Resources;
use sqlx::FromRow;

use super::{super::row::keep_of, Build, LedgerError, Micros, Template};

#[derive(FromRow)]
pub(super) struct TemplateRow {
    id: String,
    name: Option<String>,
    public: bool,
    created_at: i64,
    updated_at: i64,
}

#[derive(FromRow)]
pub(super) struct BuildRow {
    id: String,
    template: String,
    snapshot: String,
    keep: String,
    origin: String,
    vcpus: i64,
    memory: i64,
    disk: i64,
    created_at: i64,
}

/// Reads a column; `id` says which row it is of.
pub(super) fn parse<T: std::str::FromStr>(
    text: &str,
    id: &str,
    column: &'static str,
) -> Result<T, LedgerError> {
    text.parse().map_err(|_| LedgerError::Malformed {
        id: id.to_owned(),
        column,
    })
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

impl TryFrom<BuildRow> for Build {
    type Error = LedgerError;

    fn try_from(row: BuildRow) -> Result<Self, LedgerError> {
        let bad = |column| LedgerError::Malformed {
            id: row.id.clone(),
            column,
        };
        Ok(Self {
            template: parse(&row.template, &row.id, "template")?,
            snapshot: parse(&row.snapshot, &row.id, "snapshot")?,
            keep: keep_of(&row.keep).ok_or_else(|| bad("keep"))?,
            origin: parse(&row.origin, &row.id, "origin")?,
            resources: Resources {
                vcpus: u8::try_from(row.vcpus).map_err(|_| bad("vcpus"))?,
                memory: u64::try_from(row.memory).map_err(|_| bad("memory"))?,
                disk: u64::try_from(row.disk).map_err(|_| bad("disk"))?,
            },
            created_at: Micros(row.created_at),
            id: row.id,
        })
    }
}
