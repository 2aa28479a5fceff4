//! Step 2 of a request: looks up the host of a sandbox and its access rules.

use coordinator::{Coordinator, Placement};
use pool_api::SandboxId;

/// The coordinator has no placement of the sandbox.
#[derive(Debug, thiserror::Error)]
#[error("sandbox {sandbox} was not found")]
pub(crate) struct RouteError {
    /// The sandbox.
    pub(crate) sandbox: SandboxId,
}

/// Looks up the placement of a sandbox. The coordinator of this process answers from memory, so there is no cache.
pub(crate) fn route(
    coordinator: &Coordinator,
    sandbox: &SandboxId,
) -> Result<Placement, RouteError> {
    coordinator.locate(sandbox).ok_or_else(|| RouteError {
        sandbox: sandbox.clone(),
    })
}
