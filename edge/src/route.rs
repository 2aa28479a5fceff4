//! Where a sandbox is and who may use it.

use coordinator::{Coordinator, CoordinatorError, Placement};
use pool_api::SandboxId;

/// A sandbox that cannot be routed to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    /// Nobody knows it.
    #[error("sandbox {0} was not found")]
    Unknown(SandboxId),
    /// The coordinator failed.
    #[error("locate sandbox {sandbox}")]
    Coordinator {
        /// Which.
        sandbox: SandboxId,
        /// Why.
        #[source]
        source: CoordinatorError,
    },
}

/// Finds a sandbox. A coordinator in this process answers from memory, so nothing is cached here.
pub(crate) async fn route(
    coordinator: &Coordinator,
    sandbox: &SandboxId,
) -> Result<Placement, RouteError> {
    match coordinator.locate(sandbox).await {
        Ok(Some(placement)) => Ok(placement),
        Ok(None) => Err(RouteError::Unknown(sandbox.clone())),
        Err(source) => Err(RouteError::Coordinator {
            sandbox: sandbox.clone(),
            source,
        }),
    }
}
