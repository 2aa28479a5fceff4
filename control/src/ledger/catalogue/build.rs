//! A build of a template: one retained snapshot.

use pool_api::{Resources, SandboxId, SnapshotId, SnapshotScope};
use sqlx::FromRow;

use crate::{
    ids::{BuildId, TemplateId},
    ledger::{
        column::{malformed, parse, resources, scope_from_text},
        error::LedgerError,
    },
    time::Micros,
};

/// A build of a template.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    /// Its id.
    pub(crate) id: BuildId,
    /// The template.
    pub(crate) template: TemplateId,
    /// The retained snapshot.
    pub(crate) snapshot: SnapshotId,
    /// What the snapshot contains.
    pub(crate) scope: SnapshotScope,
    /// The sandbox that the snapshot was taken of.
    pub(crate) origin: SandboxId,
    /// Resources of the machines that start from it.
    pub(crate) resources: Resources,
    /// When the snapshot was taken.
    pub(crate) created_at: Micros,
}

/// A row, not validated.
#[derive(FromRow)]
pub(super) struct BuildRow {
    id: String,
    template: String,
    snapshot: String,
    #[sqlx(rename = "keep")]
    scope: String,
    origin: String,
    vcpus: i64,
    memory: i64,
    disk: i64,
    created_at: i64,
}

impl TryFrom<BuildRow> for Build {
    type Error = LedgerError;

    fn try_from(row: BuildRow) -> Result<Self, LedgerError> {
        Ok(Self {
            id: parse(&row.id, &row.id, "id")?,
            template: parse(&row.template, &row.id, "template")?,
            snapshot: parse(&row.snapshot, &row.id, "snapshot")?,
            scope: scope_from_text(&row.scope).ok_or_else(|| malformed(&row.id, "keep"))?,
            origin: parse(&row.origin, &row.id, "origin")?,
            resources: resources(row.vcpus, row.memory, row.disk, &row.id)?,
            created_at: Micros(row.created_at),
        })
    }
}
