//! Changes of a sandbox's network.

use pool_api::{SandboxId, SandboxState};

use super::{Conflict, Failure, Sandboxes, new_token};
use crate::network::Network;

impl Sandboxes {
    /// Replaces what a running sandbox's network is to be. Who may come in changes only if the caller says so: clients
    /// that replace what may leave do not know of it.
    pub(crate) async fn set_network(
        &self,
        id: &SandboxId,
        mut network: Network,
    ) -> Result<(), Failure> {
        let missing = || Failure::NotFound(id.clone());
        let _turn = self.turns.alone(id).await;
        let entry = self.ledger.get(id).await?.ok_or_else(missing)?;
        match self.node.info(id).await.map(|info| info.state) {
            None | Some(SandboxState::Stopped(_)) => return Err(missing()),
            Some(SandboxState::Starting | SandboxState::Running) => {}
            Some(SandboxState::Paused) => return Err(Conflict::NotRunning(id.clone()).into()),
            Some(state) => return Err(Conflict::between(id.clone(), state)),
        }
        let old = Network::read(entry.lasting.network.as_ref());
        network.allow_public_traffic = network.allow_public_traffic.or(old.allow_public_traffic);
        network.mask_request_host = network.mask_request_host.or(old.mask_request_host);
        network.https_ports = network.https_ports.or(old.https_ports);
        if network.is_private() && entry.envd_token.is_none() {
            return Err(Failure::insecure());
        }
        let mut token = entry.traffic_token;
        if network.is_private() {
            token.get_or_insert_with(new_token);
        }
        let token = token.as_ref().map(|token| token.expose());
        let kept = network.kept();
        let known = self.ledger.set_network(id, kept.as_ref(), token).await?;
        if !known {
            return Err(missing());
        }
        let entry = self.ledger.get(id).await?.ok_or_else(missing)?;
        self.publish(&entry).await
    }
}
