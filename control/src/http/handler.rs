//! Types and functions that every handler uses.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use super::error::ApiError;
use crate::{error::ServiceError, service::SandboxService};

/// The service, as handlers extract it.
pub(super) type Service = State<Arc<SandboxService>>;

/// The result of a handler.
pub(super) type HandlerResult = Result<Response, ApiError>;

/// Runs a change to completion even if the client disconnects, so that it is not left half done.
pub(super) async fn run_to_completion<T: Send + 'static>(
    change: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(change).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ServiceError::internal(error).into()),
    }
}
