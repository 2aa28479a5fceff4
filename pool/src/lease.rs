//! Leases on running sandboxes.

use std::{io, sync::Arc};

use async_trait::async_trait;
use guest_api::{AGENT_VSOCK_PORT, RELAY_VSOCK_PORT, RelayError, envd, relay};
use pool_api::{DialError, Epoch, Lease, Port, WakeReport};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use vmm_api::Machine;

use crate::gate::Pass;

/// The machine that leases of one epoch lead to.
#[derive(Debug)]
pub(crate) struct LeaseTarget {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) epoch: Epoch,
    /// Revokes the epoch's leases.
    pub(crate) revoked: CancellationToken,
}

/// A lease on a sandbox of this pool.
#[derive(Debug)]
pub(crate) struct PoolLease {
    target: Arc<LeaseTarget>,
    report: Option<WakeReport>,
    _pass: Pass,
}

impl PoolLease {
    pub(crate) fn new(target: Arc<LeaseTarget>, pass: Pass) -> Self {
        Self {
            target,
            report: None,
            _pass: pass,
        }
    }

    /// Adds the report of the wake that its caller waited for.
    pub(crate) fn with_report(self, report: Option<WakeReport>) -> Self {
        Self { report, ..self }
    }
}

#[async_trait]
impl Lease for PoolLease {
    fn epoch(&self) -> Epoch {
        self.target.epoch
    }

    fn wake(&self) -> Option<&WakeReport> {
        self.report.as_ref()
    }

    async fn dial(&self, port: Port) -> Result<UnixStream, DialError> {
        let machine = &*self.target.machine;
        let result = tokio::select! {
            result = connect(machine, port) => result,
            () = self.target.revoked.cancelled() => return Err(DialError::Gone),
        };
        if result.is_err() && machine.exit().borrow().is_some() {
            return Err(DialError::Gone);
        }
        result
    }

    async fn revoked(&self) {
        self.target.revoked.cancelled().await;
    }
}

/// Connects to the agent over its own vsock port, and to other ports through the guest's relay.
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
