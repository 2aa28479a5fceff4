//! Resume and connect.

use pool_api::{SandboxId, SnapshotScope};

use super::SandboxService;
use crate::{
    error::{Conflict, ServiceError},
    ledger::{SandboxRecord, StartSource},
    time::{Lifetime, Micros},
};

/// How to resume a sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResumeOptions {
    /// Its new lifetime. `None`: the lifetime requested at creation, or the present deadline if it already runs.
    pub(crate) lifetime: Option<Lifetime>,
    /// The part of its snapshot to start from.
    pub(crate) scope: SnapshotScope,
}

/// The result of a connect.
#[derive(Debug)]
pub(crate) enum ConnectOutcome {
    /// The sandbox was running.
    Running(SandboxRecord),
    /// The sandbox was paused and runs again.
    Resumed(SandboxRecord),
}

impl SandboxService {
    /// Resumes a paused sandbox.
    pub(crate) async fn resume(
        &self,
        id: &SandboxId,
        options: ResumeOptions,
    ) -> Result<SandboxRecord, ServiceError> {
        let _lock = self.locks.exclusive(id).await;
        self.resume_locked(id, options).await
    }

    async fn resume_locked(
        &self,
        id: &SandboxId,
        options: ResumeOptions,
    ) -> Result<SandboxRecord, ServiceError> {
        let missing = || ServiceError::NotFound(id.clone());
        let mut record = self.ledger.get(id).await?.ok_or_else(missing)?;
        let info = self.node.resume(id, options.scope).await?;
        let lifetime = options.lifetime.unwrap_or(record.settings.lifetime);
        let lifetime = lifetime.at_most(self.config.max_lifetime);
        record.start(info.epoch, Micros::now(), lifetime);
        self.record_running(&record, StartSource::Request).await?;
        Ok(record)
    }

    /// Resumes a sandbox if it is paused, otherwise extends its deadline to the requested lifetime.
    pub(crate) async fn connect(
        &self,
        id: &SandboxId,
        options: ResumeOptions,
    ) -> Result<ConnectOutcome, ServiceError> {
        let _lock = self.locks.exclusive(id).await;
        match self.resume_locked(id, options).await {
            Ok(record) => Ok(ConnectOutcome::Resumed(record)),
            Err(ServiceError::Conflict(Conflict::AlreadyRunning(_))) => {
                if let Some(lifetime) = options.lifetime {
                    match self.extend_deadline_locked(id, lifetime).await {
                        // The ledger may not have recorded a wake by a request yet.
                        Ok(()) | Err(ServiceError::NotFound(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(ConnectOutcome::Running(self.get(id).await?.record))
            }
            Err(error) => Err(error),
        }
    }
}
