//! Pause.

use pool_api::{PauseCause, PauseError, SandboxId, SandboxState, SnapshotScope};

use super::SandboxService;
use crate::{error::ServiceError, ledger::PauseReport, time::Micros};

/// Whether a pause requires that the guest agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestCheck {
    /// Pause in any case.
    Skip,
    /// Fail if the agent of a running sandbox does not answer.
    RequireResponsive,
}

impl SandboxService {
    /// Pauses a sandbox.
    pub(crate) async fn pause(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
        check: GuestCheck,
    ) -> Result<(), ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        let _lock = self.locks.shared(id).await;
        self.pause_locked(id, scope, check).await
    }

    /// Pauses a sandbox whose lock the caller holds.
    pub(super) async fn pause_locked(
        &self,
        id: &SandboxId,
        scope: SnapshotScope,
        check: GuestCheck,
    ) -> Result<(), ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let info = self.node.info(id).await.ok_or_else(missing)?;
        if check == GuestCheck::RequireResponsive
            && info.state == SandboxState::Running
            && !self.metrics.is_responsive(id).await
        {
            return Err(ServiceError::GuestUnresponsive(id.clone()));
        }
        let requested = |epoch, at, scope| PauseReport {
            epoch,
            at,
            scope,
            cause: PauseCause::Requested,
        };
        match self.node.pause(id, info.epoch, scope).await {
            Ok(taken) => {
                let pause = requested(info.epoch, Micros::now(), taken.scope);
                self.record_paused(id, &pause).await
            }
            Err(error) => {
                if let PauseError::AlreadyPaused {
                    epoch,
                    since,
                    scope,
                    ..
                } = error
                {
                    let pause = requested(epoch, since.into(), scope);
                    self.record_paused(id, &pause).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Records a pause and publishes the access rules, which change if the snapshot contains only the disk.
    pub(super) async fn record_paused(
        &self,
        id: &SandboxId,
        pause: &PauseReport,
    ) -> Result<(), ServiceError> {
        let recorded = self.ledger.record_paused(id, pause).await?;
        if !recorded && pause.cause == PauseCause::Requested {
            // Another cause was recorded first. A requested pause clears the deadline nevertheless.
            self.ledger.clear_kill_deadline(id, pause.epoch).await?;
        }
        if let Some(record) = self.ledger.get(id).await? {
            self.publish(&record).await?;
        }
        self.deadlines_changed.notify_one();
        Ok(())
    }
}
