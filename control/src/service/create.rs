//! Creation of sandboxes.

use std::time::Duration;

use pool_api::{CreateError, Epoch, SandboxId, SandboxInfo, SandboxSpec, Secret};

use super::{
    SandboxService,
    idempotency::{CreateOutcome, IdempotencyKey},
    token,
};
use crate::{
    error::ServiceError,
    ids::TemplateId,
    ledger::{SandboxRecord, SandboxSettings, StoredResponse},
    reference::Reference,
    time::{Lifetime, Micros},
};

/// A request for a sandbox, validated.
#[derive(Debug)]
pub(crate) struct CreateRequest {
    /// The template or snapshot to start from.
    pub(crate) reference: Reference,
    /// The sandbox's settings.
    pub(crate) settings: SandboxSettings,
    /// Whether the guest agent requires a token.
    pub(crate) secure: bool,
}

/// An idempotent request, and how its response is rendered.
#[derive(Debug, Clone, Copy)]
struct Idempotency<'a> {
    key: &'a IdempotencyKey,
    render: fn(&SandboxRecord) -> String,
}

impl Idempotency<'_> {
    fn response(&self, record: &SandboxRecord) -> StoredResponse {
        StoredResponse {
            key: self.key.text.clone(),
            digest: self.key.digest.clone(),
            body: (self.render)(record),
        }
    }
}

/// The properties of a new sandbox beside those that the host reports.
pub(super) struct NewRecord {
    pub(super) template: TemplateId,
    pub(super) alias: Option<String>,
    pub(super) envd_token: Option<Secret>,
    pub(super) traffic_token: Option<Secret>,
    pub(super) lifetime: Lifetime,
    pub(super) settings: SandboxSettings,
}

impl NewRecord {
    /// The record of a sandbox that the host has just started.
    pub(super) fn into_record(self, info: SandboxInfo, max_lifetime: Duration) -> SandboxRecord {
        let now = Micros::now();
        SandboxRecord {
            id: info.id,
            template: self.template,
            alias: self.alias,
            running: true,
            epoch: info.epoch,
            started_at: now,
            end_at: self.lifetime.at_most(max_lifetime).deadline(now),
            kill_at: None,
            pause_scope: None,
            resources: info.resources,
            envd_token: self.envd_token,
            traffic_token: self.traffic_token,
            settings: self.settings,
        }
    }
}

impl SandboxService {
    /// Creates a sandbox.
    pub(crate) async fn create(
        &self,
        request: CreateRequest,
    ) -> Result<SandboxRecord, ServiceError> {
        self.create_recorded(request, None).await
    }

    /// Creates a sandbox once per idempotency key. A repeated request returns the stored response, which `render` made.
    ///
    /// The response is stored in the transaction that inserts the record, so a retry after a crash returns the same
    /// sandbox. A crash before that leaves a sandbox without a record, which the next startup kills.
    pub(crate) async fn create_once(
        &self,
        key: IdempotencyKey,
        request: CreateRequest,
        render: fn(&SandboxRecord) -> String,
    ) -> Result<CreateOutcome, ServiceError> {
        let _guard = self.in_flight_creates.acquire(&key).await?;
        if let Some(stored) = self.ledger.response(&key.text).await? {
            return if stored.digest == key.digest {
                Ok(CreateOutcome::Replayed(stored.body))
            } else {
                Err(ServiceError::KeyReused)
            };
        }
        let idempotency = Idempotency { key: &key, render };
        let record = self.create_recorded(request, Some(idempotency)).await?;
        Ok(CreateOutcome::Created(Box::new(record)))
    }

    async fn create_recorded(
        &self,
        request: CreateRequest,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<SandboxRecord, ServiceError> {
        let CreateRequest {
            reference,
            settings,
            secure,
        } = request;
        let source = self.create_source(&reference).await?;
        let spec = SandboxSpec {
            id: SandboxId::generate(&mut rand::rng()),
            epoch: Epoch(1),
            origin: source.origin,
            template: source.template.as_name().clone(),
            idle: settings.idle_timeout,
            env: settings.env.clone(),
            access_token: secure.then(token::generate),
        };
        let new = NewRecord {
            template: source.template,
            alias: source.alias,
            envd_token: spec.access_token.clone(),
            traffic_token: settings.network.is_private().then(token::generate),
            lifetime: settings.lifetime,
            settings,
        };
        let info = self.node.create(spec).await.map_err(|error| match error {
            // The template was removed since it was resolved. The caller knows it by this name.
            CreateError::NoTemplate(_) => ServiceError::template_not_found(&reference.name),
            error => error.into(),
        })?;
        let record = new.into_record(info, self.config.max_lifetime);
        let response = idempotency.map(|idempotency| idempotency.response(&record));
        self.record_created(record, response.as_ref()).await
    }

    /// Records a sandbox that the host has started, and publishes its placement.
    pub(super) async fn record_created(
        &self,
        record: SandboxRecord,
        response: Option<&StoredResponse>,
    ) -> Result<SandboxRecord, ServiceError> {
        if let Err(error) = self.ledger.insert(&record, response).await {
            // No caller will know its id.
            drop(self.node.kill(&record.id).await);
            return Err(error.into());
        }
        self.publish(&record).await?;
        self.deadlines_changed.notify_one();
        if self.node.info(&record.id).await.is_none() {
            // It stopped before the record existed, so its event removed nothing.
            self.remove_record(&record.id).await?;
        }
        Ok(record)
    }
}
