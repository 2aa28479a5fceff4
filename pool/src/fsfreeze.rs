//! Freezing and thawing a guest's filesystem around a disk-only snapshot.

use std::{sync::Arc, time::Duration};

use guest_api::{AgentError, HOST_VSOCK_PORT, client};
use tokio::time::timeout;
use tracing::{Instrument, info, warn};
use vmm_api::{DialError, Machine};

/// The timeout of a freeze or a thaw. A freeze writes the guest's page cache back.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The time before the first and between later retries of a thaw.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Whether a guest's filesystem is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frozen {
    No,
    /// It is, or a call that may have frozen it had no response.
    Maybe,
}

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

/// Unblocks writes. A guest that does not answer is asked again in the background until its machine ends: the call is
/// idempotent, and writes that wait are better than a machine that is lost.
pub(crate) async fn thaw(machine: &Arc<dyn Machine>) {
    let Err(error) = try_thaw(&**machine).await else {
        return;
    };
    warn!(error = %error_chain::chain(&error), "failed to thaw the guest's filesystem; retrying");
    let machine = Arc::clone(machine);
    let retries = async move {
        let mut exit = machine.exit();
        let retry = async {
            let mut pause = FIRST_RETRY;
            loop {
                tokio::time::sleep(pause).await;
                if try_thaw(&*machine).await.is_ok() {
                    return;
                }
                pause = LAST_RETRY.min(pause * 2);
            }
        };
        tokio::select! {
            // The machine ended, or is no longer watched.
            _ended = exit.wait_for(Option::is_some) => {}
            () = retry => info!("guest filesystem thawed"),
        }
    };
    tokio::spawn(retries.in_current_span());
}

async fn try_thaw(machine: &dyn Machine) -> Result<(), FreezeError> {
    let stream = machine.dial(HOST_VSOCK_PORT).await;
    let call = client::unfreeze(stream.map_err(FreezeError::Dial)?);
    let result = timeout(TIMEOUT, call).await;
    result
        .map_err(|_| FreezeError::Timeout)?
        .map_err(FreezeError::Agent)
}
