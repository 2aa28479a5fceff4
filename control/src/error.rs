//! Errors of the service. `http/error.rs` maps them to responses.

use std::fmt;

use pool_api::{
    Cause, CreateError, EnterError, FailedPart, ForkError, PauseError, ResumeError, RollbackError,
    SandboxId, SandboxState, SnapshotError, TemplateError, TemplateName,
};
use tracing::{error, warn};

use crate::{
    ledger::LedgerError,
    network::InvalidNetwork,
    reference::{InvalidReference, Tag},
};

/// A request that the service did not carry out. The texts are the messages that clients receive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// An invalid request.
    #[error("{0}")]
    Invalid(String),
    /// No such sandbox.
    #[error("Sandbox \"{0}\" doesn't exist or you don't have access to it")]
    NotFound(SandboxId),
    /// No such template.
    #[error("template '{name}' not found")]
    TemplateNotFound {
        /// The name as the caller wrote it.
        name: String,
    },
    /// The template has no such tag.
    #[error("tag '{tag}' does not exist for template '{template}'")]
    TagNotFound {
        /// The template's name, or its id if it has none.
        template: TemplateName,
        /// The tag.
        tag: Tag,
    },
    /// The host has no artefacts to build the template from.
    #[error("{}", error_chain::chain(.0))]
    NoArtefacts(TemplateError),
    /// The sandbox has no such snapshot.
    #[error("Snapshot \"{snapshot}\" doesn't exist or isn't one of sandbox \"{sandbox}\"")]
    SnapshotNotFound {
        /// The reference as the caller wrote it.
        snapshot: String,
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The guest agent does not answer and the caller requires that it does.
    #[error("the guest agent of sandbox \"{0}\" does not answer")]
    GuestUnresponsive(SandboxId),
    /// The idempotency key belongs to a different request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The first request with this idempotency key is still in progress.
    #[error("a request with this idempotency key is still in progress")]
    CreateInProgress,
    /// The feature is part of the API but not implemented.
    #[error("{0} are not supported by this server yet")]
    Unsupported(Feature),
    /// The sandbox or name is in a state that does not allow the request.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The host is full.
    #[error("there is no room on this host: {diagnostic}")]
    NoRoom {
        /// The resource that is exhausted.
        diagnostic: String,
    },
    /// No such object is in quarantine.
    #[error("\"{0}\" is not in quarantine")]
    NotQuarantined(String),
    /// The guest did not take on its identity.
    #[error("the guest agent of sandbox \"{0}\" did not answer as it should")]
    GuestFailed(SandboxId),
    /// A file of the snapshot is missing or damaged.
    #[error("the snapshot that sandbox \"{0}\" starts from is damaged")]
    SnapshotDamaged(SandboxId),
    /// The last wake failed, and the next attempt is not due.
    #[error("the last wake of sandbox \"{id}\" failed; try again in {retry_after_secs} s")]
    Backoff {
        /// The sandbox.
        id: SandboxId,
        /// The seconds until the next attempt, rounded up.
        retry_after_secs: u32,
    },
    /// The host's disk is full.
    #[error("there is no disk space on this host: {diagnostic}")]
    NoDiskSpace {
        /// The free space and the reserve.
        diagnostic: String,
    },
    /// A fault of this server.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Features of the API that this server does not implement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    TemplateBuilds,
    Volumes,
    Secrets,
    Teams,
    WorkloadIdentities,
}

/// States that do not allow a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Conflict {
    #[error("Error pausing sandbox - sandbox '{0}' is already paused")]
    AlreadyPaused(SandboxId),
    #[error("Sandbox {0} is already running")]
    AlreadyRunning(SandboxId),
    #[error("Sandbox '{0}' is paused and cannot be forked; resume it first")]
    ForkPaused(SandboxId),
    #[error("Sandbox \"{0}\" is being killed")]
    BeingKilled(SandboxId),
    #[error("Sandbox \"{0}\" is transitioning, try again in a moment")]
    Transitioning(SandboxId),
    #[error("Sandbox \"{0}\" is not running")]
    NotRunning(SandboxId),
    #[error("the name '{0}' is taken by another template")]
    NameTaken(TemplateName),
    #[error("a snapshot of sandbox '{0}' is already in progress")]
    SnapshotInProgress(SandboxId),
}

// === impl Feature ===

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TemplateBuilds => "template builds",
            Self::Volumes => "volumes",
            Self::Secrets => "secrets",
            Self::Teams => "teams",
            Self::WorkloadIdentities => "workload identities",
        })
    }
}

// === impl ServiceError ===

impl ServiceError {
    /// Wraps a fault of this server.
    pub(crate) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(error))
    }

    /// A start failed. The guest's own words are not repeated.
    fn start_failed(id: SandboxId, part: FailedPart, source: Cause) -> Self {
        match part {
            FailedPart::Guest => {
                warn!(sandbox.id = %id, "failed to start sandbox: its guest agent failed");
                Self::GuestFailed(id)
            }
            FailedPart::Snapshot => {
                error!(sandbox.id = %id, error = %error_chain::chain(&*source), "failed to start sandbox");
                Self::SnapshotDamaged(id)
            }
            FailedPart::Host => Self::Internal(source),
        }
    }

    /// Private ports require a traffic token, which E2B only issues together with an envd token.
    pub(crate) fn private_without_envd_token() -> Self {
        let message = "You cannot create a sandbox without public access unless you enable secure envd access via \
                       'secure' flag.";
        Self::Invalid(message.to_owned())
    }

    /// No template has this name or id.
    pub(crate) fn template_not_found(name: &TemplateName) -> Self {
        Self::TemplateNotFound {
            name: name.to_string(),
        }
    }

    /// The template has no such tag.
    pub(crate) fn tag_not_found(template: &TemplateName, tag: &Tag) -> Self {
        Self::TagNotFound {
            template: template.clone(),
            tag: tag.clone(),
        }
    }

    /// The sandbox is in a state that does not allow the request.
    pub(crate) fn in_state(id: SandboxId, state: SandboxState) -> Self {
        match state {
            SandboxState::Stopped(_) => Self::NotFound(id),
            SandboxState::Stopping => Conflict::BeingKilled(id).into(),
            SandboxState::Starting
            | SandboxState::Running
            | SandboxState::Pausing
            | SandboxState::Paused => Conflict::Transitioning(id).into(),
        }
    }
}

impl From<InvalidReference> for ServiceError {
    fn from(error: InvalidReference) -> Self {
        Self::Invalid(format!("Invalid template reference: {error}"))
    }
}

impl From<InvalidNetwork> for ServiceError {
    fn from(error: InvalidNetwork) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<LedgerError> for ServiceError {
    fn from(error: LedgerError) -> Self {
        Self::internal(error)
    }
}

// === Errors of the host ===

impl From<CreateError> for ServiceError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::NoTemplate(name) => Self::TemplateNotFound { name },
            CreateError::NoRoom { diagnostic } => Self::NoRoom { diagnostic },
            CreateError::NoDiskSpace { diagnostic } => Self::NoDiskSpace { diagnostic },
            CreateError::Failed { id, part, source } => Self::start_failed(id, part, source),
            error @ CreateError::Exists(_) => Self::internal(error),
        }
    }
}

impl From<PauseError> for ServiceError {
    fn from(error: PauseError) -> Self {
        match error {
            PauseError::NotFound(id) => Self::NotFound(id),
            PauseError::AlreadyPaused { id, .. } => Conflict::AlreadyPaused(id).into(),
            PauseError::Conflict { id, state } => Self::in_state(id, state),
            error @ PauseError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<SnapshotError> for ServiceError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::NotFound(id) => Self::NotFound(id),
            SnapshotError::Conflict { id, state } => Self::in_state(id, state),
            error @ SnapshotError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<RollbackError> for ServiceError {
    fn from(error: RollbackError) -> Self {
        match error {
            RollbackError::NotFound(id) => Self::NotFound(id),
            RollbackError::NoSnapshot { id, snapshot } => Self::SnapshotNotFound {
                snapshot: snapshot.to_string(),
                sandbox: id,
            },
            RollbackError::Conflict { id, state } => Self::in_state(id, state),
            RollbackError::Failed { id, part, source } => Self::start_failed(id, part, source),
        }
    }
}

impl From<EnterError> for ServiceError {
    fn from(error: EnterError) -> Self {
        match error {
            EnterError::NotFound(id) => Self::NotFound(id),
            EnterError::Transitioning { id, state } => Self::in_state(id, state),
            EnterError::NoRoom { diagnostic } => Self::NoRoom { diagnostic },
            EnterError::Backoff {
                id,
                retry_after_secs,
            } => Self::Backoff {
                id,
                retry_after_secs,
            },
            EnterError::Failed { id, part, source } => Self::start_failed(id, part, source),
            error @ EnterError::Paused(_) => Self::internal(error),
        }
    }
}

impl From<ResumeError> for ServiceError {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::AlreadyRunning(id) => Conflict::AlreadyRunning(id).into(),
            ResumeError::Enter(error) => error.into(),
        }
    }
}

impl From<ForkError> for ServiceError {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::NotFound(id) => Self::NotFound(id),
            ForkError::Paused(id) => Conflict::ForkPaused(id).into(),
            ForkError::Conflict { id, state } => Self::in_state(id, state),
            error @ ForkError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<TemplateError> for ServiceError {
    fn from(error: TemplateError) -> Self {
        match error {
            error @ TemplateError::NoArtefacts { .. } => Self::NoArtefacts(error),
            error @ TemplateError::Failed { .. } => Self::internal(error),
        }
    }
}
