//! Fork.

use pool_api::{Epoch, ForkSpec, SandboxId};

use super::{Failure, Sandboxes, new_token};
use crate::{ledger::Entry, time::Window};

impl Sandboxes {
    /// Forks a running sandbox; one outcome a child. Each child has its own name and tokens and its origin's all else.
    pub(crate) async fn fork(
        &self,
        origin: &SandboxId,
        count: usize,
        window: Window,
    ) -> Result<Vec<Result<Entry, Failure>>, Failure> {
        let entry = self
            .ledger
            .get(origin)
            .await?
            .ok_or_else(|| Failure::NotFound(origin.clone()))?;
        let children: Vec<ForkSpec> = (0..count)
            .map(|_| ForkSpec {
                id: SandboxId::generate(&mut rand::rng()),
                epoch: Epoch(1),
                access_token: entry.envd_token.as_ref().map(|_| new_token()),
            })
            .collect();
        let tokens: Vec<_> = children
            .iter()
            .map(|child| child.access_token.clone())
            .collect();
        let made = self.node.fork(origin, children).await?;
        let mut outcomes = Vec::with_capacity(count);
        for (made, envd_token) in made.into_iter().zip(tokens) {
            let traffic_token = entry.traffic_token.as_ref().map(|_| new_token());
            outcomes.push(match made {
                Ok(info) => {
                    let lasting = entry.lasting.clone();
                    let child = self.entry(info, lasting, envd_token, traffic_token, window);
                    self.note_new(child, None).await
                }
                Err(error) => Err(error.into()),
            });
        }
        Ok(outcomes)
    }
}
