//! When sandboxes end.

use std::time::Duration;

use pool_api::SandboxId;

use super::{Entry, Ledger, LedgerError, failed, row::Row};
use crate::time::{Micros, Window};

/// Longer than any time that is told from another, and short enough to be added to one.
const FOREVER: i64 = i64::MAX / 4;

impl Ledger {
    /// Moves a running sandbox's end to `window` from now, but no further than `longest` from its start. `only_later`:
    /// never to an earlier time. Says where it is then; `None` when there is no such running sandbox.
    pub(crate) async fn set_end(
        &self,
        id: &SandboxId,
        window: Window,
        longest: Duration,
        only_later: bool,
    ) -> Result<Option<Micros>, LedgerError> {
        let end_at = window.end(Micros(FOREVER), Micros::now(), Duration::ZERO);
        let longest = match window {
            Window::For(_) => i64::try_from(longest.as_micros()).unwrap_or(FOREVER),
            Window::Never => FOREVER,
        };
        let end: Option<(i64,)> = sqlx::query_as(
            "UPDATE sandboxes SET end_at = \
             max(min(?1, started_at + ?2), CASE WHEN ?3 THEN end_at ELSE 0 END) \
             WHERE id = ?4 AND state = 'running' RETURNING end_at",
        )
        .bind(end_at.0)
        .bind(longest)
        .bind(only_later)
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("move the end of a sandbox"))?;
        Ok(end.map(|(end,)| Micros(end)))
    }

    /// Puts off ending a sandbox whose end has come.
    pub(crate) async fn put_off(&self, id: &SandboxId, until: Micros) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE sandboxes SET end_at = CASE state WHEN 'running' THEN ?1 ELSE end_at END, \
             doomed_at = CASE WHEN doomed_at IS NULL THEN NULL ELSE ?1 END WHERE id = ?2",
        )
        .bind(until.0)
        .bind(id.as_str())
        .execute(&self.pool)
        .await
        .map_err(failed("put off the end of a sandbox"))?;
        Ok(())
    }

    /// When the next sandbox ends.
    pub(crate) async fn first_end(&self) -> Result<Option<Micros>, LedgerError> {
        let (end,): (Option<i64>,) = sqlx::query_as(
            "SELECT min(first) FROM (SELECT min(end_at) AS first FROM sandboxes WHERE state = 'running' \
             UNION ALL SELECT min(doomed_at) FROM sandboxes WHERE doomed_at IS NOT NULL)",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed("read the first end"))?;
        Ok(end.map(Micros))
    }

    /// Sandboxes whose end has come.
    pub(crate) async fn due(&self, now: Micros) -> Result<Vec<Entry>, LedgerError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM sandboxes WHERE (state = 'running' AND end_at <= ?1) OR doomed_at <= ?1",
        )
        .bind(now.0)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read what is due"))?;
        rows.into_iter().map(Entry::try_from).collect()
    }
}
