//! A coordinator in this process's memory, for one host.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pool_api::{Epoch, NodeId, SandboxId};
use tokio::{sync::broadcast, time::Instant};

use crate::{Claim, ClaimError, Coordinator, CoordinatorError, Placement, PublishError};

/// Changes a watcher may be behind before it must forget all it remembers.
const WATCH_CAPACITY: usize = 1024;

/// Placements and claims of one process.
#[derive(Debug)]
pub struct InMemory {
    tables: Mutex<Tables>,
    changes: broadcast::Sender<SandboxId>,
}

#[derive(Debug, Default)]
struct Tables {
    placements: HashMap<SandboxId, Placement>,
    claims: HashMap<SandboxId, Claim>,
}

impl Default for InMemory {
    fn default() -> Self {
        Self {
            tables: Mutex::default(),
            changes: broadcast::channel(WATCH_CAPACITY).0,
        }
    }
}

impl InMemory {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, sandbox: &SandboxId) {
        // Nobody watching is no error.
        drop(self.changes.send(sandbox.clone()));
    }
}

#[async_trait]
impl Coordinator for InMemory {
    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Placement>, CoordinatorError> {
        Ok(self.tables().placements.get(sandbox).cloned())
    }

    async fn publish(&self, sandbox: &SandboxId, placement: Placement) -> Result<(), PublishError> {
        {
            let mut tables = self.tables();
            if let Some(known) = tables.placements.get(sandbox)
                && known.epoch > placement.epoch
            {
                return Err(PublishError::Superseded {
                    sandbox: sandbox.clone(),
                    current: known.epoch,
                });
            }
            tables.placements.insert(sandbox.clone(), placement);
        }
        self.changed(sandbox);
        Ok(())
    }

    async fn withdraw(&self, sandbox: &SandboxId) -> Result<(), CoordinatorError> {
        let known = self.tables().placements.remove(sandbox).is_some();
        if known {
            self.changed(sandbox);
        }
        Ok(())
    }

    async fn claim(
        &self,
        sandbox: &SandboxId,
        node: &NodeId,
        ttl: Duration,
    ) -> Result<Claim, ClaimError> {
        let now = Instant::now();
        let mut tables = self.tables();
        let placed = tables
            .placements
            .get(sandbox)
            .map_or(Epoch::default(), |placement| placement.epoch);
        let last = match tables.claims.get(sandbox) {
            Some(claim) if claim.until > now => {
                return Err(ClaimError::Held {
                    sandbox: sandbox.clone(),
                    holder: claim.node.clone(),
                });
            }
            Some(claim) => claim.epoch.max(placed),
            None => placed,
        };
        let claim = Claim {
            sandbox: sandbox.clone(),
            node: node.clone(),
            epoch: last.next(),
            until: now + ttl,
        };
        tables.claims.insert(sandbox.clone(), claim.clone());
        Ok(claim)
    }

    async fn renew(&self, claim: &mut Claim, ttl: Duration) -> Result<(), ClaimError> {
        let now = Instant::now();
        let mut tables = self.tables();
        match tables.claims.get_mut(&claim.sandbox) {
            Some(known) if known.epoch == claim.epoch && known.until > now => {
                known.until = now + ttl;
                claim.until = known.until;
                Ok(())
            }
            _ => Err(ClaimError::Over(claim.sandbox.clone())),
        }
    }

    async fn release(&self, claim: Claim) -> Result<(), CoordinatorError> {
        if let Some(known) = self.tables().claims.get_mut(&claim.sandbox)
            && known.epoch == claim.epoch
        {
            // The record stays, so that the next claim's life is a later one.
            known.until = Instant::now();
        }
        Ok(())
    }

    fn watch(&self) -> broadcast::Receiver<SandboxId> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod test {
    use super::InMemory;
    use crate::conformance;

    #[tokio::test(start_paused = true)]
    async fn memory_conforms() {
        conformance::check(&InMemory::default()).await;
    }
}
