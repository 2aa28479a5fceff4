//! A permit for a lease. A sleeping sandbox is woken here, while the request waits.

use std::time::Duration;

use pool_api::{EnterError, Lease, Node, SandboxId};

use crate::access::{Asleep, Permit};

/// A request that was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    /// The sandbox sleeps, and this request's credentials do not wake it.
    #[error("sandbox {0} is paused and the credentials do not wake it")]
    BadCredentials(SandboxId),
    /// The host said no.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// It did not wake in time.
    #[error("sandbox {sandbox} did not wake in {limit:?}")]
    TimedOut {
        /// Which.
        sandbox: SandboxId,
        /// The time it had.
        limit: Duration,
    },
    /// The client went away while it waited.
    #[error("the client hung up")]
    HungUp,
}

/// Lets a request in. `hung_up` is ready once nobody waits for the answer. Whoever hangs up meanwhile waits no longer; the wake goes on for the others.
pub(crate) async fn admit(
    node: &dyn Node,
    permit: Permit,
    hung_up: impl Future<Output = ()>,
    limit: Duration,
) -> Result<Box<dyn Lease>, AdmitError> {
    let sandbox = &permit.address().sandbox;
    let enter = node.enter(sandbox, permit.wake());
    let entered = tokio::select! {
        biased;
        entered = tokio::time::timeout(limit, enter) => entered,
        () = hung_up => return Err(AdmitError::HungUp),
    };
    match entered {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(EnterError::Paused(id))) if permit.asleep() == Asleep::BadCredentials => {
            Err(AdmitError::BadCredentials(id))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(AdmitError::TimedOut {
            sandbox: sandbox.clone(),
            limit,
        }),
    }
}
