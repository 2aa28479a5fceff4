//! Freezing a guest's filesystem, so that its disk alone is all there is of it.

use std::time::Duration;

use guest_api::{AgentError, HOST_VSOCK_PORT, client};
use tokio::time::timeout;
use vmm_api::{DialError, Machine};

/// How long a guest may take to write back what it holds. A guest that is asked for it runs.
const LIMIT: Duration = Duration::from_secs(60);

/// A filesystem that was not frozen, or not thawed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThawError {
    #[error("reach the guest agent")]
    Dial(#[source] DialError),
    #[error("ask the guest agent")]
    Agent(#[source] AgentError),
    #[error("the guest agent did not answer within {LIMIT:?}")]
    Late,
}

/// Writes back what the guest holds, and lets nothing be written from then on.
pub(crate) async fn freeze(machine: &dyn Machine) -> Result<(), ThawError> {
    let stream = machine.dial(HOST_VSOCK_PORT).await;
    let frozen = client::freeze(stream.map_err(ThawError::Dial)?);
    let frozen = timeout(LIMIT, frozen).await.map_err(|_| ThawError::Late)?;
    frozen.map_err(ThawError::Agent)
}

/// Lets the guest write again.
pub(crate) async fn unfreeze(machine: &dyn Machine) -> Result<(), ThawError> {
    let stream = machine.dial(HOST_VSOCK_PORT).await;
    let thawed = client::unfreeze(stream.map_err(ThawError::Dial)?);
    let thawed = timeout(LIMIT, thawed).await.map_err(|_| ThawError::Late)?;
    thawed.map_err(ThawError::Agent)
}
