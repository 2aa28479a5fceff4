//! Quarantine: sandboxes and snapshots of the host that the ledger does not know.
//!
//! The ledger may be new, of an earlier start, or of another directory, so an unknown object is not removed at once. No
//! request reaches it; its owner takes it back or removes it, and after [`RETENTION`] it is removed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use error_chain::chain;
use pool_api::{SandboxId, SandboxInfo, SandboxSpec, SnapshotId, SnapshotScope};
use tracing::{error, info, warn};

use super::{SandboxService, token};
use crate::{
    error::ServiceError,
    ids::{BuildId, TemplateId},
    ledger::{Build, HostObject, Quarantined, SandboxRecord, SandboxSettings},
    network::Network,
    reference::Tag,
    time::{Lifetime, Micros},
};

/// The time after which an object in quarantine is removed.
pub(crate) const RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// The time between two removals.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// The lifetime of a rebuilt sandbox after a wake.
const LIFETIME: Duration = Duration::from_secs(300);

impl SandboxService {
    /// Lists the objects in quarantine, oldest first.
    pub(crate) async fn quarantined(&self) -> Result<Vec<Quarantined>, ServiceError> {
        Ok(self.ledger.quarantined().await?)
    }

    /// Takes an object back from quarantine; returns the id under which it is found.
    pub(crate) async fn take_back(&self, id: &str) -> Result<String, ServiceError> {
        let object = self.find_quarantined(id).await?;
        let found = match &object {
            HostObject::Sandbox(id) => self.take_back_sandbox(id).await?,
            HostObject::Snapshot(id) => self.take_back_snapshot(id).await?,
        };
        self.ledger.end_quarantine(&object).await?;
        info!(
            kind = object.kind(),
            id = object.id(),
            "object taken back from quarantine"
        );
        Ok(found)
    }

    /// Removes an object in quarantine from the host.
    pub(crate) async fn discard(&self, id: &str) -> Result<(), ServiceError> {
        let object = self.find_quarantined(id).await?;
        self.remove_from_host(&object).await
    }

    /// Removes objects whose quarantine is over, for ever.
    pub(crate) async fn run_quarantine(self: Arc<Self>) {
        loop {
            if let Err(error) = self.sweep_quarantine(Micros::now()).await {
                error!(error = %chain(&error), "failed to remove objects from quarantine");
            }
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    }

    pub(super) async fn sweep_quarantine(&self, now: Micros) -> Result<(), ServiceError> {
        for Quarantined { object, since } in self.ledger.quarantined().await? {
            if since.after(RETENTION) <= now {
                warn!(
                    kind = object.kind(),
                    id = object.id(),
                    "quarantine is over; object removed"
                );
                self.remove_from_host(&object).await?;
            }
        }
        Ok(())
    }

    async fn find_quarantined(&self, id: &str) -> Result<HostObject, ServiceError> {
        let all = self.ledger.quarantined().await?;
        let found = all.into_iter().find(|entry| entry.object.id() == id);
        let missing = || ServiceError::NotQuarantined(id.to_owned());
        Ok(found.ok_or_else(missing)?.object)
    }

    async fn remove_from_host(&self, object: &HostObject) -> Result<(), ServiceError> {
        match object {
            // An error means that it does not exist.
            HostObject::Sandbox(id) => drop(self.node.kill(id).await),
            HostObject::Snapshot(id) => {
                let released = self.node.release_snapshot(id).await;
                released.map_err(ServiceError::internal)?;
            }
        }
        self.ledger.end_quarantine(object).await?;
        Ok(())
    }

    async fn take_back_sandbox(&self, id: &SandboxId) -> Result<String, ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let info = self.node.info(id).await.ok_or_else(missing)?;
        let spec = self.node.spec(id).await.ok_or_else(missing)?;
        let record = rebuilt_record(info, spec);
        self.ledger.insert(&record, None).await?;
        self.publish(&record).await?;
        Ok(record.id.to_string())
    }

    /// A rebuilt snapshot belongs to a new template without a name.
    async fn take_back_snapshot(&self, id: &SnapshotId) -> Result<String, ServiceError> {
        let missing = || ServiceError::NotQuarantined(id.to_string());
        let retained = self.node.retained_snapshot(id).await.ok_or_else(missing)?;
        let build = Build {
            id: BuildId::generate(),
            template: TemplateId::generate().map_err(ServiceError::internal)?,
            snapshot: id.clone(),
            scope: retained.scope,
            origin: retained.sandbox,
            resources: retained.resources,
            created_at: Micros::now(),
        };
        let added = self.ledger.add_build(&build, None, &Tag::default()).await?;
        let template = added.map(|(template, _)| template);
        Ok(template.unwrap_or(build.template).to_string())
    }
}

/// Describes a sandbox by what the host knows, and otherwise safely: no request wakes it, and its ports need a token.
fn rebuilt_record(info: SandboxInfo, spec: SandboxSpec) -> SandboxRecord {
    let mut network = Network::default();
    network.allow_public_traffic = Some(false);
    SandboxRecord {
        id: info.id,
        alias: Some(spec.template.to_string()),
        template: TemplateId::from(spec.template),
        running: false,
        epoch: info.epoch,
        started_at: info.started_at.into(),
        end_at: info.since.into(),
        kill_at: None,
        pause_scope: Some(info.scope),
        resources: info.resources,
        envd_token: spec.access_token,
        traffic_token: Some(token::generate()),
        settings: SandboxSettings {
            lifetime: Lifetime::For(LIFETIME),
            idle_timeout: spec.idle,
            auto_pause: true,
            auto_pause_scope: SnapshotScope::Full,
            kill_paused: false,
            auto_resume: false,
            metadata: BTreeMap::new(),
            env: spec.env,
            network,
        },
    }
}
