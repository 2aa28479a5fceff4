//! The placement of every sandbox: which host has it, and who may use it.
//!
//! A [`Placement`] stays while its sandbox is paused, so that a wake goes to the host that has its layers. Epochs order
//! placements: a publication with a stale epoch is rejected.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pool_api::{Epoch, NodeId, SandboxId, Secret};
use serde::{Deserialize, Serialize};

/// The host of a sandbox and its access rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The host that has the sandbox.
    pub node: NodeId,
    /// The epoch that the placement belongs to.
    pub epoch: Epoch,
    /// The access rules.
    pub access: Access,
}

/// Access rules of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    /// Token that the guest agent requires. The edge compares it only before it wakes the sandbox for such a request.
    pub envd_token: Option<Secret>,
    /// Token that requests to every other port need; `None` if they need none.
    pub traffic_token: Option<Secret>,
    /// Whether a request may wake the sandbox.
    pub auto_resume: bool,
    /// The `Host` header that the sandbox's ports receive, in which `${PORT}` is replaced by the port; `None`: the header
    /// of the request.
    pub mask_request_host: Option<String>,
    /// Ports whose services use TLS, with certificates that are not verified.
    #[serde(default)]
    pub https_ports: Vec<u16>,
}

/// The placements of all sandboxes, in memory.
#[derive(Debug, Default)]
pub struct Coordinator {
    placements: Mutex<HashMap<SandboxId, Placement>>,
}

/// A placement was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A placement of a later epoch is published.
    #[error("sandbox {sandbox} is already at epoch {current}")]
    Superseded {
        /// The sandbox.
        sandbox: SandboxId,
        /// The published epoch.
        current: Epoch,
    },
}

impl Coordinator {
    fn placements(&self) -> MutexGuard<'_, HashMap<SandboxId, Placement>> {
        self.placements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up the placement of a sandbox.
    pub fn locate(&self, sandbox: &SandboxId) -> Option<Placement> {
        self.placements().get(sandbox).cloned()
    }

    /// Publishes the placement of a sandbox, replacing one of the same or an earlier epoch.
    pub fn publish(&self, sandbox: &SandboxId, placement: Placement) -> Result<(), PublishError> {
        let mut placements = self.placements();
        if let Some(published) = placements.get(sandbox)
            && published.epoch > placement.epoch
        {
            return Err(PublishError::Superseded {
                sandbox: sandbox.clone(),
                current: published.epoch,
            });
        }
        placements.insert(sandbox.clone(), placement);
        Ok(())
    }

    /// Withdraws the placement of a sandbox, if it has one.
    pub fn withdraw(&self, sandbox: &SandboxId) {
        self.placements().remove(sandbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(epoch: u64) -> Placement {
        Placement {
            node: "n1".parse().unwrap(),
            epoch: Epoch(epoch),
            access: Access {
                auto_resume: true,
                ..Access::default()
            },
        }
    }

    #[test]
    fn placement_with_stale_epoch_is_rejected() {
        let coordinator = Coordinator::default();
        let id: SandboxId = "iplaced".parse().unwrap();
        assert_eq!(coordinator.locate(&id), None);
        coordinator.publish(&id, placement(2)).unwrap();
        let stale = coordinator.publish(&id, placement(1));
        assert!(
            matches!(
                stale,
                Err(PublishError::Superseded {
                    current: Epoch(2),
                    ..
                })
            ),
            "{stale:?}"
        );
        let mut same = placement(2);
        same.access.auto_resume = false;
        coordinator.publish(&id, same.clone()).unwrap();
        assert_eq!(coordinator.locate(&id), Some(same));
    }

    #[test]
    fn withdrawn_placement_is_not_located() {
        let coordinator = Coordinator::default();
        let id: SandboxId = "iplaced".parse().unwrap();
        coordinator.publish(&id, placement(1)).unwrap();
        coordinator.withdraw(&id);
        assert_eq!(coordinator.locate(&id), None);
        coordinator.withdraw(&id);
        coordinator.publish(&id, placement(1)).unwrap();
    }
}
