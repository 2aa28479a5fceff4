//! Why something was not carried out, by whose fault.

use coordinator::CoordinatorError;
use pool_api::{
    CreateError, EnterError, ForkError, PauseError, ResumeError, RollbackError, SandboxId,
    SandboxState, SnapshotError, TemplateError, TemplateName,
};

use crate::{
    ledger::LedgerError,
    reference::{InvalidReference, Tag},
};

/// Something that was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The caller asked for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There is no such sandbox.
    #[error("Sandbox \"{0}\" doesn't exist or you don't have access to it")]
    NotFound(SandboxId),
    /// There is no such template, or nothing to build it from.
    #[error("{0}")]
    NoTemplate(String),
    /// There is no such snapshot of the sandbox.
    #[error("Snapshot \"{snapshot}\" doesn't exist or isn't one of sandbox \"{sandbox}\"")]
    NoSnapshot {
        /// As the caller wrote it.
        snapshot: String,
        /// Which sandbox.
        sandbox: SandboxId,
    },
    /// The guest's agent does not answer, and the caller asked for one that does.
    #[error("the guest agent of sandbox \"{0}\" does not answer")]
    Unresponsive(SandboxId),
    /// An idempotency key came back with another request.
    #[error("the idempotency key was used with another request")]
    OtherRequest,
    /// An idempotency key's first request is still being carried out.
    #[error("a request with this idempotency key is still being carried out")]
    StillCreating,
    /// It is not there yet.
    #[error("{0} not supported by this server yet")]
    Later(&'static str),
    /// Not in this state.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The host is full.
    #[error("there is no room on this host: {0}")]
    NoRoom(String),
    /// Our own fault.
    #[error("internal")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A state that does not allow it.
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
    #[error("a snapshot of sandbox '{0}' is being taken already")]
    BeingKept(SandboxId),
}

impl Conflict {
    /// The conflict of a sandbox that is between states.
    pub(crate) fn between(id: SandboxId, state: SandboxState) -> Failure {
        match state {
            SandboxState::Stopped(_) => Failure::NotFound(id),
            SandboxState::Stopping => Self::BeingKilled(id).into(),
            SandboxState::Starting
            | SandboxState::Running
            | SandboxState::Pausing
            | SandboxState::Paused => Self::Transitioning(id).into(),
        }
    }
}

impl Failure {
    /// Our own fault.
    pub(crate) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(error))
    }

    /// Ports can ask for a token only where the guest agent does.
    pub(crate) fn insecure() -> Self {
        let message = "You cannot create a sandbox without public access unless you enable secure envd access via \
                       'secure' flag.";
        Self::Invalid(message.to_owned())
    }

    /// There is no such template.
    pub(crate) fn no_template(name: &TemplateName) -> Self {
        Self::NoTemplate(format!("template '{name}' not found"))
    }

    /// The template has no such tag.
    pub(crate) fn no_tag(name: &TemplateName, tag: &Tag) -> Self {
        Self::NoTemplate(format!("tag '{tag}' does not exist for template '{name}'"))
    }
}

impl From<InvalidReference> for Failure {
    fn from(error: InvalidReference) -> Self {
        Self::Invalid(format!("Invalid template reference: {error}"))
    }
}

impl From<PauseError> for Failure {
    fn from(error: PauseError) -> Self {
        match error {
            PauseError::NotFound(id) => Self::NotFound(id),
            PauseError::AlreadyPaused { id, .. } => Conflict::AlreadyPaused(id).into(),
            PauseError::Conflict { id, state } => Conflict::between(id, state),
            error @ PauseError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::NotFound(id) => Self::NotFound(id),
            SnapshotError::Conflict { id, state } => Conflict::between(id, state),
            error @ SnapshotError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<RollbackError> for Failure {
    fn from(error: RollbackError) -> Self {
        match error {
            RollbackError::NotFound(id) => Self::NotFound(id),
            RollbackError::NoSnapshot { id, snapshot } => Self::NoSnapshot {
                snapshot: snapshot.to_string(),
                sandbox: id,
            },
            RollbackError::Conflict { id, state } => Conflict::between(id, state),
            error @ RollbackError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::internal(error)
    }
}

impl From<CoordinatorError> for Failure {
    fn from(error: CoordinatorError) -> Self {
        Self::internal(error)
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::NoTemplate(name) => {
                Self::NoTemplate(format!("template '{name}' not found"))
            }
            CreateError::NoRoom { diagnostic } => Self::NoRoom(diagnostic),
            error @ (CreateError::Exists(_) | CreateError::Failed { .. }) => Self::internal(error),
        }
    }
}

impl From<EnterError> for Failure {
    fn from(error: EnterError) -> Self {
        match error {
            EnterError::NotFound(id) => Self::NotFound(id),
            EnterError::Transitioning { id, state } => Conflict::between(id, state),
            EnterError::NoRoom { diagnostic } => Self::NoRoom(diagnostic),
            error @ (EnterError::Paused(_) | EnterError::Failed { .. }) => Self::internal(error),
        }
    }
}

impl From<ResumeError> for Failure {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::AlreadyRunning(id) => Conflict::AlreadyRunning(id).into(),
            ResumeError::Enter(error) => error.into(),
        }
    }
}

impl From<ForkError> for Failure {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::NotFound(id) => Self::NotFound(id),
            ForkError::Paused(id) => Conflict::ForkPaused(id).into(),
            ForkError::Conflict { id, state } => Conflict::between(id, state),
            error @ ForkError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        match &error {
            TemplateError::NoArtefacts { source, .. } => {
                Self::NoTemplate(format!("{error}: {source}"))
            }
            TemplateError::Failed { .. } => Self::internal(error),
        }
    }
}
