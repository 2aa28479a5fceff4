//! Kills or pauses sandboxes at their deadlines.
//!
//! One task sleeps until the earliest deadline, which the ledger has an index for. [`SandboxService`] notifies it when
//! the earliest deadline may have changed.

use std::{sync::Arc, time::Duration};

use error_chain::chain;
use pool_api::{SandboxId, SandboxState};
use tracing::{error, info, warn};

use super::{SandboxService, pause::GuestCheck};
use crate::{
    error::{Conflict, ServiceError},
    ledger::SandboxRecord,
    time::Micros,
};

/// The longest sleep, so that changes of the wall clock are noticed.
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// The time until a failed expiry is retried.
const RETRY_DELAY: Duration = Duration::from_secs(10);

impl SandboxService {
    /// Expires sandboxes forever.
    pub(crate) async fn run_expiry(self: Arc<Self>) {
        loop {
            let wait = match self.ledger.next_deadline().await {
                Ok(Some(deadline)) => deadline.until(Micros::now()).min(MAX_SLEEP),
                Ok(None) => MAX_SLEEP,
                Err(error) => {
                    error!(error = %chain(&error), "failed to read next deadline");
                    RETRY_DELAY
                }
            };
            if wait.is_zero() {
                self.expire_due().await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.deadlines_changed.notified() => {}
            }
        }
    }

    async fn expire_due(self: &Arc<Self>) {
        let expired = match self.ledger.expired(Micros::now()).await {
            Ok(expired) => expired,
            Err(error) => {
                error!(error = %chain(&error), "failed to list expired sandboxes");
                tokio::time::sleep(RETRY_DELAY).await;
                return;
            }
        };
        for record in expired {
            // Deferred first: expiry takes time, and other sandboxes expire meanwhile. After a crash it is retried.
            let retry_at = Micros::now().after(RETRY_DELAY);
            match self.ledger.claim_expiry(&record, retry_at).await {
                Ok(true) => {}
                // Its deadline or its state has changed.
                Ok(false) => continue,
                Err(error) => {
                    error!(sandbox.id = %record.id, error = %chain(&error), "failed to defer deadline of sandbox");
                    tokio::time::sleep(RETRY_DELAY).await;
                    return;
                }
            }
            let service = self.clone();
            tokio::spawn(async move { service.expire(record, retry_at).await });
        }
    }

    async fn expire(&self, record: SandboxRecord, claimed: Micros) {
        let id = record.id.clone();
        match self.try_expire(&id, claimed).await {
            // A concurrent request was faster.
            Ok(())
            | Err(ServiceError::Conflict(Conflict::AlreadyPaused(_) | Conflict::BeingKilled(_))) => {
            }
            Err(ServiceError::NotFound(_)) if self.node.info(&id).await.is_none() => {
                if let Err(error) = self.remove_record(&id).await {
                    error!(sandbox.id = %id, error = %chain(&error), "failed to remove record of sandbox");
                }
            }
            Err(error) => {
                warn!(sandbox.id = %id, error = %chain(&error), "failed to expire sandbox");
            }
        }
    }

    /// Ends a sandbox whose expiry was claimed, unless its deadline was changed since. No caller changes it meanwhile.
    async fn try_expire(&self, id: &SandboxId, claimed: Micros) -> Result<(), ServiceError> {
        let _lock = self.locks.exclusive(id).await;
        let Some(record) = self.ledger.get(id).await? else {
            return Ok(());
        };
        let deadline = if record.running {
            Some(record.end_at)
        } else {
            record.kill_at
        };
        if deadline != Some(claimed) {
            return Ok(());
        }
        let info = self.node.info(&record.id).await;
        if record.running
            && let Some(info) = info.filter(|info| info.state == SandboxState::Paused)
        {
            // It was paused just before its deadline, and the ledger has not recorded that yet.
            return self.reconcile_sandbox(record, &info).await;
        }
        if record.running && record.settings.auto_pause {
            let scope = record.settings.auto_pause_scope;
            self.pause_locked(id, scope, GuestCheck::Skip).await?;
            info!(sandbox.id = %id, "expired sandbox paused");
        } else {
            self.kill(id).await?;
            info!(sandbox.id = %id, "expired sandbox killed");
        }
        Ok(())
    }
}
