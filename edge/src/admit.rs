//! Step 4 of a request: exchanges its permit for a lease. A paused sandbox wakes meanwhile.

use std::time::Duration;

use pool_api::{EnterError, Lease, Node, SandboxId};

use crate::access::{PausedResponse, Permit};

/// A request that gets no lease.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    /// The sandbox is paused, and the tokens of the request do not wake it.
    #[error("sandbox {0} is paused and the tokens do not wake it")]
    Forbidden(SandboxId),
    /// The host refused or failed.
    #[error("failed to enter sandbox {sandbox}")]
    Enter {
        /// The sandbox.
        sandbox: SandboxId,
        /// The cause.
        source: EnterError,
    },
    /// The wake exceeded its timeout.
    #[error("sandbox {sandbox} did not wake within {timeout:?}")]
    TimedOut {
        /// The sandbox.
        sandbox: SandboxId,
        /// The time that it had.
        timeout: Duration,
    },
    /// The client disconnected meanwhile.
    #[error("the client disconnected")]
    ClientGone,
}

/// Enters a sandbox. `client_gone` completes once the client has disconnected; that cancels the wait, not the wake.
pub(crate) async fn admit(
    node: &dyn Node,
    permit: Permit,
    client_gone: impl Future<Output = ()>,
    timeout: Duration,
) -> Result<Box<dyn Lease>, AdmitError> {
    let sandbox = permit.sandbox();
    let enter = node.enter(sandbox, permit.if_paused());
    let entered = tokio::select! {
        biased;
        entered = tokio::time::timeout(timeout, enter) => entered,
        () = client_gone => return Err(AdmitError::ClientGone),
    };
    match entered {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(EnterError::Paused(id)))
            if permit.paused_response() == PausedResponse::Forbidden =>
        {
            Err(AdmitError::Forbidden(id))
        }
        Ok(Err(source)) => Err(AdmitError::Enter {
            sandbox: sandbox.clone(),
            source,
        }),
        Err(_) => Err(AdmitError::TimedOut {
            sandbox: sandbox.clone(),
            timeout,
        }),
    }
}
