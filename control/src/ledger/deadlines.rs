//! Deadlines: of running sandboxes, and of paused ones that are killed while paused.

use std::time::Duration;

use pool_api::SandboxId;

use super::{
    Ledger,
    column::signed,
    error::{LedgerError, failed},
    list::readable,
    record::SandboxRecord,
    row::SandboxRow,
};
use crate::time::{Lifetime, Micros, whole_micros};

/// How a new deadline relates to the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadlineChange {
    /// Replaces it.
    Set,
    /// Replaces it only if the new one is later.
    Extend,
}

impl Ledger {
    /// Moves the deadline of a running sandbox to `lifetime` from now. A limited lifetime ends at most `max` after the
    /// start of the epoch. Returns the resulting deadline, or `None` if there is no such running sandbox.
    pub(crate) async fn set_deadline(
        &self,
        id: &SandboxId,
        lifetime: Lifetime,
        max: Duration,
        change: DeadlineChange,
    ) -> Result<Option<Micros>, LedgerError> {
        let deadline = lifetime.deadline(Micros::now());
        let max = match lifetime {
            Lifetime::For(_) => Some(whole_micros(max)),
            Lifetime::Unlimited => None,
        };
        let moved: Option<(i64,)> = sqlx::query_as(
            "UPDATE sandboxes SET end_at = max(min(?1, coalesce(started_at + ?2, ?1)), \
             CASE WHEN ?3 THEN end_at ELSE 0 END) WHERE id = ?4 AND state = 'running' RETURNING end_at",
        )
        .bind(deadline.0)
        .bind(max)
        .bind(change == DeadlineChange::Extend)
        .bind(id.as_str())
        .fetch_optional(&self.writer)
        .await
        .map_err(failed("set deadline of sandbox"))?;
        Ok(moved.map(|(deadline,)| Micros(deadline)))
    }

    /// Claims the expiry of a sandbox by deferring its deadline, unless the deadline, the epoch or the state has changed
    /// since `seen` was read. Returns whether it did.
    pub(crate) async fn claim_expiry(
        &self,
        seen: &SandboxRecord,
        until: Micros,
    ) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "UPDATE sandboxes SET end_at = CASE state WHEN 'running' THEN ?1 ELSE end_at END, \
             doomed_at = CASE WHEN doomed_at IS NULL THEN NULL ELSE ?1 END \
             WHERE id = ?2 AND end_at = ?3 AND doomed_at IS ?4 AND epoch = ?5 AND state = ?6",
        )
        .bind(until.0)
        .bind(seen.id.as_str())
        .bind(seen.end_at.0)
        .bind(seen.kill_at.map(|at| at.0))
        .bind(signed(seen.epoch.0))
        .bind(if seen.running { "running" } else { "paused" })
        .execute(&self.writer)
        .await
        .map_err(failed("defer deadline of sandbox"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The earliest deadline.
    pub(crate) async fn next_deadline(&self) -> Result<Option<Micros>, LedgerError> {
        let (next,): (Option<i64>,) = sqlx::query_as(
            "SELECT min(first) FROM (SELECT min(end_at) AS first FROM sandboxes WHERE state = 'running' \
             UNION ALL SELECT min(doomed_at) FROM sandboxes WHERE doomed_at IS NOT NULL)",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed("read next deadline"))?;
        Ok(next.map(Micros))
    }

    /// Sandboxes whose deadline has passed.
    pub(crate) async fn expired(&self, now: Micros) -> Result<Vec<SandboxRecord>, LedgerError> {
        let rows: Vec<SandboxRow> = sqlx::query_as(
            "SELECT * FROM sandboxes WHERE (state = 'running' AND end_at <= ?1) OR doomed_at <= ?1",
        )
        .bind(now.0)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list expired sandboxes"))?;
        Ok(readable(rows).0)
    }
}
