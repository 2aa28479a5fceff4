//! Changes of a sandbox's network.

use pool_api::{SandboxId, SandboxState};

use super::{SandboxService, token};
use crate::{
    error::{Conflict, ServiceError},
    network::Network,
};

impl SandboxService {
    /// Replaces the network of a running sandbox. Omitted rules for incoming traffic are retained, because E2B's
    /// clients send only those for outgoing traffic.
    pub(crate) async fn set_network(
        &self,
        id: &SandboxId,
        mut network: Network,
    ) -> Result<(), ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let _lock = self.locks.exclusive(id).await;
        let record = self.ledger.get(id).await?.ok_or_else(missing)?;
        match self.node.info(id).await.map(|info| info.state) {
            None | Some(SandboxState::Stopped(_)) => return Err(missing()),
            Some(SandboxState::Starting | SandboxState::Running) => {}
            Some(SandboxState::Paused) => return Err(Conflict::NotRunning(id.clone()).into()),
            Some(state) => return Err(ServiceError::in_state(id.clone(), state)),
        }
        let old = record.settings.network;
        network.allow_public_traffic = network.allow_public_traffic.or(old.allow_public_traffic);
        network.mask_request_host = network.mask_request_host.or(old.mask_request_host);
        network.https_ports = network.https_ports.or(old.https_ports);
        let mut traffic_token = record.traffic_token;
        if network.is_private() {
            if record.envd_token.is_none() {
                return Err(ServiceError::private_without_envd_token());
            }
            traffic_token.get_or_insert_with(token::generate);
        }
        let exists = self
            .ledger
            .set_network(id, &network, traffic_token.as_ref())
            .await?;
        if !exists {
            return Err(missing());
        }
        let record = self.ledger.get(id).await?.ok_or_else(missing)?;
        self.publish(&record).await
    }
}
