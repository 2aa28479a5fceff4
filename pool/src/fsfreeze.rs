//! Freezing and thawing a guest's filesystem around a disk-only snapshot.

use std::time::Duration;

use guest_api::{AgentError, HOST_VSOCK_PORT, client};
use tokio::time::timeout;
use vmm_api::{DialError, Machine};

/// The timeout of a freeze or a thaw. A freeze writes the guest's page cache back.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Failure of [`freeze`] or [`thaw`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    #[error("failed to connect to the guest agent")]
    Dial(#[source] DialError),
    #[error("failed to call the guest agent")]
    Agent(#[source] AgentError),
    #[error("the guest agent did not respond within {TIMEOUT:?}")]
    Timeout,
}

/// Writes the page cache back and blocks writes until [`thaw`].
pub(crate) async fn freeze(machine: &dyn Machine) -> Result<(), FreezeError> {
    let stream = machine.dial(HOST_VSOCK_PORT).await;
    let call = client::freeze(stream.map_err(FreezeError::Dial)?);
    let result = timeout(TIMEOUT, call).await;
    result
        .map_err(|_| FreezeError::Timeout)?
        .map_err(FreezeError::Agent)
}

/// Unblocks writes.
pub(crate) async fn thaw(machine: &dyn Machine) -> Result<(), FreezeError> {
    let stream = machine.dial(HOST_VSOCK_PORT).await;
    let call = client::unfreeze(stream.map_err(FreezeError::Dial)?);
    let result = timeout(TIMEOUT, call).await;
    result
        .map_err(|_| FreezeError::Timeout)?
        .map_err(FreezeError::Agent)
}
