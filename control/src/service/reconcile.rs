//! Brings the ledger in line with the host: at startup, after every event, and after missed events.

use std::{collections::HashMap, time::Duration};

use error_chain::chain;
use pool_api::{Epoch, Event, EventKind, PauseCause, SandboxId, SandboxInfo, SandboxState};
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{error, info, warn};

use super::SandboxService;
use crate::{
    error::ServiceError,
    ledger::{HostObject, PauseReport, SandboxRecord, StartSource},
    time::Micros,
};

/// The minimum lifetime after a wake by a request.
const MIN_WAKE_LIFETIME: Duration = Duration::from_secs(300);

/// The delays before the ledger is reconciled after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Control could not bring the ledger in line with the host.
#[derive(Debug, thiserror::Error)]
#[error("failed to reconcile the ledger with the host")]
pub struct ReconcileError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// When the whole ledger is reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// Before requests and events. Unrecorded sandboxes are put into quarantine. The epochs of the host apply even if
    /// they are lower: after a crash it restores a sandbox from its last pause.
    Startup,
    /// While requests are served. A request may be about to record an unrecorded sandbox, and may have recorded a later
    /// epoch than the list of the host contains.
    MissedEvents,
}

impl SandboxService {
    /// Reconciles at startup, before requests and events.
    pub(crate) async fn reconcile(&self) -> Result<(), ReconcileError> {
        self.reconcile_all(Occasion::Startup)
            .await
            .map_err(|error| ReconcileError(Box::new(error)))?;
        let snapshots = self.retention.reconcile().await;
        snapshots.map_err(|error| ReconcileError(Box::new(error)))
    }

    /// Applies the host's events until the host closes them. After an event that could not be applied, the whole ledger
    /// is reconciled, again and again until that succeeds.
    pub(crate) async fn follow(&self, mut events: broadcast::Receiver<Event>) {
        let mut retry: Option<Duration> = None;
        loop {
            let applied = tokio::select! {
                () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {
                    let reconciled = self.reconcile_all(Occasion::MissedEvents).await;
                    retry = retry.filter(|_| reconciled.is_err());
                    reconciled
                }
                event = events.recv() => match event {
                    Ok(event) => self.apply(event).await,
                    Err(RecvError::Lagged(missed)) => {
                        warn!(missed, "missed events of the host");
                        self.reconcile_all(Occasion::MissedEvents).await
                    }
                    Err(RecvError::Closed) => return,
                },
            };
            if let Err(error) = applied {
                error!(error = %chain(&error), "failed to apply event of the host");
                let doubled = retry.map_or(FIRST_RETRY, |delay| delay * 2);
                retry = Some(doubled.min(LAST_RETRY));
            }
        }
    }

    async fn apply(&self, event: Event) -> Result<(), ServiceError> {
        let Event {
            id,
            epoch,
            at,
            kind,
        } = event;
        match kind {
            EventKind::Started { .. } => {
                let record = self.ledger.get(&id).await?;
                if let Some(record) = record
                    && (epoch > record.epoch || (!record.running && epoch == record.epoch))
                {
                    self.record_woken(record, epoch, at.into()).await?;
                }
            }
            EventKind::Paused { scope, cause } => {
                let at = at.into();
                let pause = PauseReport {
                    epoch,
                    at,
                    scope,
                    cause,
                };
                self.record_paused(&id, &pause).await?;
            }
            EventKind::Stopped(reason) => {
                if self.remove_record(&id).await? {
                    info!(sandbox.id = %id, ?reason, "sandbox stopped");
                }
            }
        }
        Ok(())
    }

    /// Records a start that no request to the API made, with the lifetime requested at creation.
    async fn record_woken(
        &self,
        mut record: SandboxRecord,
        epoch: Epoch,
        at: Micros,
    ) -> Result<(), ServiceError> {
        let lifetime = record.settings.lifetime.at_least(MIN_WAKE_LIFETIME);
        let lifetime = lifetime.at_most(self.config.max_lifetime);
        record.start(epoch, at, lifetime);
        self.record_running(&record, StartSource::Host).await
    }

    async fn reconcile_all(&self, occasion: Occasion) -> Result<(), ServiceError> {
        // First: a sandbox that recovers now is listed by the host afterwards.
        let broken = self.broken_reasons().await;
        let mut on_host: HashMap<SandboxId, SandboxInfo> = self
            .node
            .list()
            .await
            .into_iter()
            .map(|info| (info.id.clone(), info))
            .collect();
        let (records, unreadable) = self.ledger.all().await?;
        // A row that cannot be read belongs to a sandbox all the same.
        on_host.retain(|id, _| {
            !unreadable
                .iter()
                .any(|unreadable| unreadable == id.as_str())
        });
        for mut record in records {
            if let Some(info) = on_host.remove(&record.id) {
                if occasion == Occasion::Startup && info.epoch < record.epoch {
                    self.ledger
                        .lower_epoch(&record.id, info.epoch, info.scope)
                        .await?;
                    (record.epoch, record.pause_scope) = (info.epoch, Some(info.scope));
                }
                self.reconcile_sandbox(record, &info).await?;
            } else if let Some(reason) = broken.get(&record.id) {
                error!(sandbox.id = %record.id, error = reason, "sandbox is broken; its record is kept");
                self.publish(&record).await?;
            } else {
                info!(sandbox.id = %record.id, "recorded sandbox is missing on the host");
                self.remove_record(&record.id).await?;
            }
        }
        if occasion == Occasion::Startup {
            self.quarantine_unrecorded(on_host).await?;
        }
        self.deadlines_changed.notify_one();
        Ok(())
    }

    /// Puts sandboxes without a record into quarantine. One that never had a snapshot is killed: its caller got no
    /// response, and nothing of it would outlive a restart.
    async fn quarantine_unrecorded(
        &self,
        unrecorded: HashMap<SandboxId, SandboxInfo>,
    ) -> Result<(), ServiceError> {
        for (id, info) in unrecorded {
            if info.snapshot.is_some() || info.state == SandboxState::Paused {
                warn!(sandbox.id = %id, "unrecorded sandbox put into quarantine");
                self.ledger.quarantine(&HostObject::Sandbox(id)).await?;
            } else {
                warn!(sandbox.id = %id, "killing unrecorded sandbox");
                // An error means that it has stopped by itself.
                drop(self.node.kill(&id).await);
            }
        }
        Ok(())
    }

    /// Brings one record in line with the state on the host.
    pub(super) async fn reconcile_sandbox(
        &self,
        record: SandboxRecord,
        info: &SandboxInfo,
    ) -> Result<(), ServiceError> {
        match info.state {
            SandboxState::Starting | SandboxState::Running
                if !record.running || info.epoch > record.epoch =>
            {
                self.record_woken(record, info.epoch, info.started_at.into())
                    .await
            }
            SandboxState::Pausing | SandboxState::Paused if record.running => {
                let pause = PauseReport {
                    epoch: info.epoch,
                    at: info.since.into(),
                    scope: info.scope,
                    cause: presumed_cause(&record),
                };
                self.record_paused(&record.id, &pause).await
            }
            SandboxState::Stopping | SandboxState::Stopped(_) => {
                self.remove_record(&record.id).await.map(drop)
            }
            _ => self.publish(&record).await,
        }
    }
}

/// The cause of a pause whose event was missed: idleness if the sandbox has an idle timeout, otherwise a shutdown of the
/// host.
fn presumed_cause(record: &SandboxRecord) -> PauseCause {
    match record.settings.idle_timeout {
        Some(_) => PauseCause::Idle,
        None => PauseCause::Shutdown,
    }
}
