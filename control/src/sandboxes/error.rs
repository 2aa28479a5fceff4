//! Why something was not carried out, by whose fault.

use coordinator::CoordinatorError;
use pool_api::{
    CreateError, EnterError, ForkError, ResumeError, SandboxId, SandboxState, TemplateError,
};

use crate::ledger::LedgerError;

/// Something that was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The caller asked for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// As [`Failure::Invalid`], with a word for programs.
    #[error("{message}")]
    InvalidCode {
        /// For people.
        message: &'static str,
        /// For programs.
        error_code: &'static str,
    },
    /// There is no such sandbox.
    #[error("Sandbox \"{0}\" doesn't exist or you don't have access to it")]
    NotFound(SandboxId),
    /// There is no such template, or nothing to build it from.
    #[error("{0}")]
    NoTemplate(String),
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
            error @ (EnterError::Asleep(_) | EnterError::Failed { .. }) => Self::internal(error),
        }
    }
}

impl From<ResumeError> for Failure {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::Already(id) => Conflict::AlreadyRunning(id).into(),
            ResumeError::Enter(error) => error.into(),
        }
    }
}

impl From<ForkError> for Failure {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::NotFound(id) => Self::NotFound(id),
            ForkError::Paused(id) => Conflict::ForkPaused(id).into(),
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
