//! Transitions between running and paused. A transition of an earlier epoch than the recorded one changes nothing, so a
//! lower epoch of the host is recorded first, at startup.

use pool_api::{Epoch, PauseCause, SandboxId, SnapshotScope};

use super::{
    Ledger,
    column::{scope_text, signed},
    error::{LedgerError, failed},
    record::SandboxRecord,
};
use crate::time::Micros;

/// Source of a start; decides how it merges into the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartSource {
    /// A request to the API. It replaces what an event recorded for the same epoch.
    Request,
    /// An event of the host or its list of sandboxes. It changes nothing if the epoch is already recorded as running.
    Host,
    /// A rollback of a running sandbox. The deadline stays: the recorded one, or the record's if an event of this epoch
    /// has replaced it.
    Rollback,
}

/// A pause that happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PauseReport {
    /// The epoch that it ended.
    pub(crate) epoch: Epoch,
    /// When the sandbox was paused.
    pub(crate) at: Micros,
    /// What the snapshot contains.
    pub(crate) scope: SnapshotScope,
    /// Why it was paused.
    pub(crate) cause: PauseCause,
}

impl PauseReport {
    /// Sandboxes whose deadline still applies after the pause.
    fn deadline_kept(&self) -> DeadlineKept {
        match self.cause {
            PauseCause::Idle | PauseCause::Requested => DeadlineKept::Never,
            PauseCause::MachineLost | PauseCause::StartFailed => DeadlineKept::WithoutIdleTimeout,
            PauseCause::Shutdown => DeadlineKept::Always,
        }
    }
}

/// Sandboxes whose deadline still applies after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeadlineKept {
    /// None: the pause was requested, or the sandbox was not in use.
    Never,
    /// Those without an idle timeout. The others count as not in use.
    WithoutIdleTimeout,
    /// All: the sandbox was in use.
    Always,
}

impl Ledger {
    /// Records that a sandbox runs, with the epoch and times of `record`. Returns whether that changed the ledger.
    pub(crate) async fn record_running(
        &self,
        record: &SandboxRecord,
        source: StartSource,
    ) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "UPDATE sandboxes SET state = 'running', epoch = ?1, started_at = ?2, doomed_at = NULL, \
             end_at = CASE WHEN ?4 AND epoch < ?1 THEN end_at ELSE ?3 END \
             WHERE id = ?6 AND (epoch < ?1 OR (epoch = ?1 AND (?5 OR state = 'paused')))",
        )
        .bind(signed(record.epoch.0))
        .bind(record.started_at.0)
        .bind(record.end_at.0)
        .bind(source == StartSource::Rollback)
        .bind(source != StartSource::Host)
        .bind(record.id.as_str())
        .execute(&self.writer)
        .await
        .map_err(failed("record start of sandbox"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Records that a sandbox is paused. Returns whether it was recorded as running.
    ///
    /// A sandbox that is killed at its deadline keeps the deadline if it is configured so, or as [`DeadlineKept`]
    /// defines.
    pub(crate) async fn record_paused(
        &self,
        id: &SandboxId,
        pause: &PauseReport,
    ) -> Result<bool, LedgerError> {
        let kept = pause.deadline_kept();
        let done = sqlx::query(
            "UPDATE sandboxes SET state = 'paused', epoch = ?1, end_at = ?2, keep = ?3, \
             doomed_at = CASE WHEN kill_paused OR (NOT auto_pause AND (?4 OR (?5 AND idle_timeout IS NULL))) \
             THEN end_at END WHERE id = ?6 AND epoch <= ?1 AND state = 'running'",
        )
        .bind(signed(pause.epoch.0))
        .bind(pause.at.0)
        .bind(scope_text(pause.scope))
        .bind(kept == DeadlineKept::Always)
        .bind(kept == DeadlineKept::WithoutIdleTimeout)
        .bind(id.as_str())
        .execute(&self.writer)
        .await
        .map_err(failed("record pause of sandbox"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Records a lower epoch than the recorded one, with the scope of the snapshot that the host restores.
    pub(crate) async fn lower_epoch(
        &self,
        id: &SandboxId,
        epoch: Epoch,
        scope: SnapshotScope,
    ) -> Result<(), LedgerError> {
        sqlx::query("UPDATE sandboxes SET epoch = ?1, keep = ?2 WHERE id = ?3 AND epoch > ?1")
            .bind(signed(epoch.0))
            .bind(scope_text(scope))
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed("lower epoch of sandbox"))?;
        Ok(())
    }

    /// Removes the deadline of a paused sandbox, unless it is configured to be killed while paused.
    pub(crate) async fn clear_kill_deadline(
        &self,
        id: &SandboxId,
        epoch: Epoch,
    ) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE sandboxes SET doomed_at = NULL WHERE id = ? AND epoch = ? AND state = 'paused' AND NOT kill_paused",
        )
        .bind(id.as_str())
        .bind(signed(epoch.0))
        .execute(&self.writer)
        .await
        .map_err(failed("clear deadline of sandbox"))?;
        Ok(())
    }
}
