//! Carries out requests on the host, in the ledger, and in the placements that the edge reads.
//!
//! The order of writes decides what a crash leaves behind. A sandbox is created before it is recorded, so a crash may
//! leave a sandbox without a record, which the next startup kills. A placement is withdrawn before its sandbox is killed,
//! so the edge answers that the sandbox does not exist before any stream breaks.

mod create;
mod deadline;
mod expiry;
mod fork;
mod idempotency;
mod locks;
mod network;
mod pause;
mod quarantine;
mod reconcile;
mod resume;
mod retention;
mod rollback;
mod snapshot;
mod tags;
mod templates;
mod token;
mod view;

use std::sync::Arc;

use coordinator::{Coordinator, Placement, PublishError};
use pool_api::{Event, KillError, Node, SandboxId};
use tokio::sync::{Notify, broadcast};

pub use self::reconcile::ReconcileError;
pub(crate) use self::{
    create::CreateRequest,
    idempotency::{CreateOutcome, IdempotencyKey},
    pause::GuestCheck,
    quarantine::RETENTION as QUARANTINE_RETENTION,
    resume::{ConnectOutcome, ResumeOptions},
    templates::ResolvedTemplate,
    view::SandboxView,
};
use self::{idempotency::InFlightCreates, locks::SandboxLocks, retention::SnapshotRetention};
use crate::{
    config::Config,
    error::ServiceError,
    ledger::{Ledger, SandboxRecord, StartSource},
    metrics_poller::MetricsPoller,
};

/// Sandboxes, templates and snapshots of one host.
#[derive(Debug)]
pub(crate) struct SandboxService {
    config: Config,
    node: Arc<dyn Node>,
    coordinator: Arc<Coordinator>,
    ledger: Ledger,
    retention: SnapshotRetention,
    metrics: MetricsPoller,
    /// Create requests with an idempotency key.
    in_flight_creates: InFlightCreates,
    /// Serializes transitions of a sandbox.
    locks: SandboxLocks,
    /// Limits each sandbox to one snapshot at a time.
    snapshot_locks: SandboxLocks,
    /// Notified when the earliest deadline may have changed.
    deadlines_changed: Notify,
}

impl SandboxService {
    /// Creates the service over an open ledger.
    pub(crate) fn new(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
        ledger: Ledger,
    ) -> Self {
        Self {
            retention: SnapshotRetention::new(node.clone(), ledger.clone()),
            metrics: MetricsPoller::new(node.clone()),
            config,
            node,
            coordinator,
            ledger,
            in_flight_creates: InFlightCreates::default(),
            locks: SandboxLocks::default(),
            snapshot_locks: SandboxLocks::default(),
            deadlines_changed: Notify::new(),
        }
    }

    /// The settings.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The collected guest metrics.
    pub(crate) fn metrics(&self) -> &MetricsPoller {
        &self.metrics
    }

    /// Subscribes to the host's events.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.node.events()
    }

    /// Number of sandboxes on the host.
    pub(crate) async fn sandbox_count(&self) -> usize {
        self.node.list().await.len()
    }

    /// Closes the ledger.
    pub(crate) async fn close(&self) {
        self.ledger.close().await;
    }

    /// Kills a sandbox and removes its record.
    pub(crate) async fn kill(&self, id: &SandboxId) -> Result<(), ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        self.coordinator.withdraw(id);
        let killed = self.node.kill(id).await;
        let removed = self.remove_record(id).await?;
        match killed {
            Ok(()) => Ok(()),
            // A concurrent kill was first.
            Err(KillError::NotFound(_)) if !removed => Err(missing()),
            Err(KillError::NotFound(_)) => Ok(()),
        }
    }

    /// Reads the last `limit` bytes of a sandbox's console.
    pub(crate) async fn console(
        &self,
        id: &SandboxId,
        limit: usize,
    ) -> Result<Vec<u8>, ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        self.node.console(id, limit).await.ok_or_else(missing)
    }

    /// Records a start and publishes the placement. A start that the host reports and the ledger has already recorded is
    /// published already.
    async fn record_running(
        &self,
        record: &SandboxRecord,
        source: StartSource,
    ) -> Result<(), ServiceError> {
        let recorded = self.ledger.record_running(record, source).await?;
        if recorded || source != StartSource::Host {
            self.publish(record).await?;
            self.deadlines_changed.notify_one();
        }
        Ok(())
    }

    /// Publishes the placement and access rules of a sandbox.
    ///
    /// `record` may be outdated: the ledger is read again after the publication, until it agrees. A removed sandbox
    /// keeps no placement, because [`Self::remove_record`] withdraws after it removes the record.
    async fn publish(&self, record: &SandboxRecord) -> Result<(), ServiceError> {
        let id = &record.id;
        let mut placement = self.placement(record);
        loop {
            match self.coordinator.publish(id, placement.clone()) {
                // A later epoch is published already.
                Ok(()) | Err(PublishError::Superseded { .. }) => {}
            }
            let Some(recorded) = self.ledger.get(id).await? else {
                self.coordinator.withdraw(id);
                return Ok(());
            };
            let recorded = self.placement(&recorded);
            if recorded == placement {
                return Ok(());
            }
            placement = recorded;
        }
    }

    fn placement(&self, record: &SandboxRecord) -> Placement {
        Placement {
            node: self.config.node.clone(),
            epoch: record.epoch,
            access: record.access(),
        }
    }

    /// Removes the record, placement and metrics of a sandbox. Returns whether it had a record.
    async fn remove_record(&self, id: &SandboxId) -> Result<bool, ServiceError> {
        let removed = self.ledger.remove(id).await;
        // After the record: a concurrent publication reads the ledger last.
        self.coordinator.withdraw(id);
        self.metrics.remove(id);
        self.deadlines_changed.notify_one();
        Ok(removed?)
    }
}

#[cfg(test)]
mod tests;
