//! Pages of sandboxes, filtered and ordered by SQLite.

use std::collections::BTreeMap;

use error_chain::chain;
use sqlx::{QueryBuilder, Sqlite};
use tracing::error;

use super::{
    Ledger,
    error::{LedgerError, failed},
    record::SandboxRecord,
    row::SandboxRow,
};
use crate::{ids::TemplateId, time::Micros};

/// The columns of a list. Environments and network rules, which may be large, are not read.
const COLUMNS: &str = "id, template, state, epoch, started_at, end_at, timeout, idle_timeout, auto_pause, auto_resume, \
                       NULL AS envd_token, NULL AS traffic_token, vcpus, memory, disk, metadata, '{}' AS env, \
                       NULL AS network, alias, auto_pause_memory, kill_paused, doomed_at, keep";

/// Filters of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct SandboxQuery {
    /// Only recorded as running, or only as paused; `None`: both.
    pub(crate) running: Option<bool>,
    /// Only with these labels.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Only of this template.
    pub(crate) template: Option<TemplateId>,
    /// Only started at this time or later.
    pub(crate) started_after: Option<Micros>,
    /// Oldest first.
    pub(crate) ascending: bool,
    /// Only after this start and id, in the order of the list.
    pub(crate) after: Option<(Micros, String)>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct SandboxPage {
    pub(crate) records: Vec<SandboxRecord>,
    /// The key of the last row, if there may be more.
    pub(crate) next: Option<(Micros, String)>,
}

impl SandboxQuery {
    fn filter(&self, sql: &mut QueryBuilder<Sqlite>) {
        if let Some(running) = self.running {
            sql.push(" AND state = ");
            sql.push_bind(if running { "running" } else { "paused" });
        }
        if let Some(template) = &self.template {
            sql.push(" AND template = ");
            sql.push_bind(template.as_str().to_owned());
        }
        if let Some(time) = self.started_after {
            sql.push(" AND started_at >= ");
            sql.push_bind(time.0);
        }
        for (name, value) in &self.metadata {
            // `json_each` compares names exactly; a path would parse them.
            sql.push(" AND EXISTS (SELECT 1 FROM json_each(metadata) AS label WHERE label.key = ");
            sql.push_bind(name.clone());
            sql.push(" AND label.value = ");
            sql.push_bind(value.clone());
            sql.push(")");
        }
    }
}

impl Ledger {
    /// Reads a page of sandboxes. A row that cannot be read is logged and left out.
    pub(crate) async fn page(
        &self,
        query: &SandboxQuery,
        limit: usize,
    ) -> Result<SandboxPage, LedgerError> {
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(COLUMNS).push(" FROM sandboxes WHERE 1");
        query.filter(&mut sql);
        let (comparison, direction) = if query.ascending {
            (" > ", "ASC")
        } else {
            (" < ", "DESC")
        };
        if let Some((time, id)) = &query.after {
            sql.push(" AND (started_at, id)").push(comparison).push("(");
            sql.push_bind(time.0);
            sql.push(", ");
            sql.push_bind(id.clone());
            sql.push(")");
        }
        sql.push(format!(
            " ORDER BY started_at {direction}, id {direction} LIMIT "
        ));
        sql.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Vec<SandboxRow> = sql
            .build_query_as()
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list sandboxes"))?;
        let last = rows.last().map(SandboxRow::key);
        let next = last.filter(|_| rows.len() == limit);
        Ok(SandboxPage {
            records: readable(rows).0,
            next,
        })
    }

    /// Counts the sandboxes that are recorded as running and match the other filters.
    pub(crate) async fn count_running(&self, query: &SandboxQuery) -> Result<usize, LedgerError> {
        let query = SandboxQuery {
            running: Some(true),
            ..query.clone()
        };
        let mut sql = QueryBuilder::new("SELECT count(*) FROM sandboxes WHERE 1");
        query.filter(&mut sql);
        let (count,): (i64,) = sql
            .build_query_as()
            .fetch_one(&self.readers)
            .await
            .map_err(failed("count sandboxes"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// Validates rows; returns the records, and the ids of the rows that cannot be read.
pub(super) fn readable(rows: Vec<SandboxRow>) -> (Vec<SandboxRecord>, Vec<String>) {
    let (mut records, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let (_, id) = row.key();
        match SandboxRecord::try_from(row) {
            Ok(record) => records.push(record),
            Err(error) => {
                error!(sandbox.id = id, error = %chain(&error), "failed to read record; it is kept");
                unreadable.push(id);
            }
        }
    }
    (records, unreadable)
}
