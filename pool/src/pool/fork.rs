//! Forking a running sandbox.

use futures::{StreamExt, stream};
use pool_api::{
    CreateError, ForkError, ForkSpec, Origin, SandboxId, SandboxInfo, SandboxSpec, SandboxState,
    SnapshotScope,
};
use snapshotter::Pin;

use super::{Pool, create::ForkSource};
use crate::{
    driver::{CaptureRejected, Command},
    lifecycle::WakeSource,
};

impl Pool {
    /// Captures a running sandbox once and starts its children, some at a time.
    pub(super) async fn fork_into(
        &self,
        origin: &SandboxId,
        children: Vec<ForkSpec>,
    ) -> Result<Vec<Result<SandboxInfo, CreateError>>, ForkError> {
        let not_found = || ForkError::NotFound(origin.clone());
        let handle = self.get(origin).ok_or_else(not_found)?;
        let scope = SnapshotScope::Full;
        let captured = handle
            .ask(|reply| Command::Capture { scope, reply })
            .await
            .ok_or_else(not_found)?;
        let snapshot = captured.map_err(|rejected| fork_error(origin, rejected))?;
        let resources = handle.info.borrow().resources;
        let starts: Vec<_> = children
            .into_iter()
            .map(|child| {
                let spec = child_spec(&handle.spec, child, &snapshot);
                let snapshot = WakeSource {
                    snapshot: snapshot.clone(),
                    scope,
                };
                self.create_from(
                    spec,
                    ForkSource {
                        snapshot,
                        resources,
                    },
                )
            })
            .collect();
        Ok(stream::iter(starts)
            .buffered(self.host.config.parallel_starts.max(1))
            .collect()
            .await)
    }
}

fn fork_error(origin: &SandboxId, rejected: CaptureRejected) -> ForkError {
    let id = origin.clone();
    match rejected {
        CaptureRejected::Paused(_) => ForkError::Paused(id),
        CaptureRejected::Gone | CaptureRejected::State(SandboxState::Stopped(_)) => {
            ForkError::NotFound(id)
        }
        CaptureRejected::State(state) => ForkError::Conflict { id, state },
        CaptureRejected::Failed(error) => ForkError::Failed {
            id,
            source: error.cause(),
        },
    }
}

fn child_spec(origin: &SandboxSpec, child: ForkSpec, snapshot: &Pin) -> SandboxSpec {
    SandboxSpec {
        id: child.id,
        epoch: child.epoch,
        access_token: child.access_token,
        origin: Origin::Snapshot(snapshot.id().clone()),
        ..origin.clone()
    }
}
