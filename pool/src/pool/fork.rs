//! Many sandboxes of one that runs.

use futures::{StreamExt, stream};
use pool_api::{
    CreateError, ForkError, ForkSpec, Origin, SandboxId, SandboxInfo, SandboxSpec, SandboxState,
    SnapshotScope,
};
use snapshotter::Pin;

use super::{Pool, create::Source};
use crate::driver::{Command, NotCaptured, Own};

impl Pool {
    /// Captures a running sandbox once, which goes on, and starts its children, some at a time.
    pub(super) async fn fork_into(
        &self,
        origin: &SandboxId,
        children: Vec<ForkSpec>,
    ) -> Result<Vec<Result<SandboxInfo, CreateError>>, ForkError> {
        let not_found = || ForkError::NotFound(origin.clone());
        let handle = self.get(origin).ok_or_else(not_found)?;
        let captured = handle
            .ask(|reply| Command::Capture {
                keep: SnapshotScope::Full,
                reply,
            })
            .await
            .ok_or_else(not_found)?;
        let snapshot = match captured {
            Ok(snapshot) => snapshot,
            Err(NotCaptured::State(SandboxState::Paused, _)) => {
                return Err(ForkError::Paused(origin.clone()));
            }
            Err(NotCaptured::State(SandboxState::Stopped(_), _)) => return Err(not_found()),
            Err(NotCaptured::State(state, _)) => {
                return Err(ForkError::Conflict {
                    id: origin.clone(),
                    state,
                });
            }
            Err(NotCaptured::Failed(error)) => {
                return Err(ForkError::Failed {
                    id: origin.clone(),
                    source: error.cause(),
                });
            }
        };
        let resources = handle.info.borrow().resources;
        let born = children.into_iter().map(|child| {
            let spec = child_spec(&handle.spec, child, &snapshot);
            self.create_from(
                spec,
                Source {
                    snapshot: Own {
                        pin: snapshot.clone(),
                        keep: SnapshotScope::Full,
                    },
                    resources,
                },
            )
        });
        let born: Vec<_> = born.collect();
        Ok(stream::iter(born)
            .buffered(self.host.config.parallel_starts.max(1))
            .collect()
            .await)
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
