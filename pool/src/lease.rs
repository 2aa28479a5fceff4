//! What a caller holds while it uses a sandbox.

use std::{io, sync::Arc};

use async_trait::async_trait;
use guest_api::{AGENT_VSOCK_PORT, RELAY_VSOCK_PORT, RelayError, envd, relay};
use pool_api::{DialError, Epoch, Lease, Port, WakeReport};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use vmm_api::Machine;

use crate::gate::Pass;

/// A sandbox that runs, as its callers see it.
#[derive(Debug)]
pub(crate) struct Inhabited {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) epoch: Epoch,
    /// Its leases are revoked.
    pub(crate) revoked: CancellationToken,
}

/// A lease.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) inhabited: Arc<Inhabited>,
    pub(crate) report: Option<WakeReport>,
    pub(crate) _pass: Pass,
}

#[async_trait]
impl Lease for Held {
    fn epoch(&self) -> Epoch {
        self.inhabited.epoch
    }

    fn wake(&self) -> Option<&WakeReport> {
        self.report.as_ref()
    }

    async fn dial(&self, port: Port) -> Result<UnixStream, DialError> {
        let result = tokio::select! {
            result = connect(&*self.inhabited.machine, port) => result,
            () = self.inhabited.revoked.cancelled() => return Err(DialError::Gone),
        };
        if result.is_err() && self.inhabited.machine.exit().borrow().is_some() {
            return Err(DialError::Gone);
        }
        result
    }

    async fn revoked(&self) {
        self.inhabited.revoked.cancelled().await;
    }
}

/// The agent's port is the guest's own vsock port; any other is the relay's business.
async fn connect(machine: &dyn Machine, port: Port) -> Result<UnixStream, DialError> {
    let failed = |source| DialError::Failed { port, source };
    if port.get() == envd::AGENT_PORT {
        return machine
            .dial(AGENT_VSOCK_PORT)
            .await
            .map_err(|error| match error {
                vmm_api::DialError::Closed(_) => DialError::Closed(port),
                vmm_api::DialError::Io(source) => failed(source),
            });
    }
    let mut stream = machine
        .dial(RELAY_VSOCK_PORT)
        .await
        .map_err(|error| failed(io::Error::other(error)))?;
    match relay::open(&mut stream, port.get()).await {
        Ok(()) => Ok(stream),
        Err(RelayError::Refused(_)) => Err(DialError::Closed(port)),
        Err(RelayError::Io { source, .. }) => Err(failed(source)),
        Err(error) => Err(failed(io::Error::other(error))),
    }
}
