//! Step 2 of a request: looks up the host of a sandbox and its access rules.

use coordinator::{Coordinator, CoordinatorError, Placement};
use pool_api::SandboxId;

/// A sandbox that cannot be located.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    /// The coordinator has no placement of the sandbox.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// The coordinator failed.
    #[error("failed to locate sandbox {sandbox}")]
    Coordinator {
        /// The sandbox.
        sandbox: SandboxId,
        /// The cause.
        #[source]
        source: CoordinatorError,
    },
}

/// Looks up the placement of a sandbox. The coordinator of this process answers from memory, so there is no cache.
pub(crate) async fn route(
    coordinator: &Coordinator,
    sandbox: &SandboxId,
) -> Result<Placement, RouteError> {
    match coordinator.locate(sandbox).await {
        Ok(Some(placement)) => Ok(placement),
        Ok(None) => Err(RouteError::NotFound(sandbox.clone())),
        Err(source) => Err(RouteError::Coordinator {
            sandbox: sandbox.clone(),
            source,
        }),
    }
}
