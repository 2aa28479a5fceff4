//! Fork.

use pool_api::{Epoch, ForkSpec, SandboxId};

use super::{SandboxService, create::NewRecord, token};
use crate::{error::ServiceError, ledger::SandboxRecord, time::Lifetime};

impl SandboxService {
    /// Forks a running sandbox `count` times, with one result per fork. A fork has its own id and tokens, and the
    /// template and settings of its origin.
    pub(crate) async fn fork(
        &self,
        origin: &SandboxId,
        count: usize,
        lifetime: Lifetime,
    ) -> Result<Vec<Result<SandboxRecord, ServiceError>>, ServiceError> {
        let record = self
            .ledger
            .get(origin)
            .await?
            .ok_or_else(|| ServiceError::NotFound(origin.clone()))?;
        let specs: Vec<ForkSpec> = (0..count)
            .map(|_| ForkSpec {
                id: SandboxId::generate(&mut rand::rng()),
                epoch: Epoch(1),
                access_token: record.envd_token.as_ref().map(|_| token::generate()),
            })
            .collect();
        let envd_tokens: Vec<_> = specs.iter().map(|spec| spec.access_token.clone()).collect();
        let forks = self.node.fork(origin, specs).await?;
        let mut results = Vec::with_capacity(count);
        for (fork, envd_token) in forks.into_iter().zip(envd_tokens) {
            let new = NewRecord {
                template: record.template.clone(),
                alias: record.alias.clone(),
                envd_token,
                traffic_token: record.traffic_token.as_ref().map(|_| token::generate()),
                lifetime,
                settings: record.settings.clone(),
            };
            results.push(match fork {
                Ok(info) => {
                    let record = new.into_record(info, self.config.max_lifetime);
                    self.record_created(record, None).await
                }
                Err(error) => Err(error.into()),
            });
        }
        Ok(results)
    }
}
