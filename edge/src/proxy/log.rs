//! Log events of requests. No event contains a header or a body.

use error_chain::chain;
use pingora::Error;
use pool_api::{DialError, EnterError};
use tracing::{debug, error, warn};

use crate::{admit::AdmitError, context::SandboxRequest, rejection::Rejection};

/// Logs a rejected request: failures of the gateway as warnings and errors, the rest for debugging.
pub(super) fn rejected(rejection: &Rejection) {
    match rejection {
        Rejection::Admit(AdmitError::TimedOut { sandbox, .. }) => {
            warn!(sandbox.id = %sandbox, error = %chain(rejection), "sandbox wake timed out");
        }
        Rejection::Admit(AdmitError::Enter {
            sandbox,
            source: error @ EnterError::NoRoom { .. },
        }) => {
            warn!(sandbox.id = %sandbox, error = %chain(error), "failed to wake sandbox");
        }
        Rejection::Admit(AdmitError::Enter {
            sandbox,
            source: EnterError::Failed { source, .. },
        }) => {
            error!(sandbox.id = %sandbox, error = %chain(source.as_ref()), "failed to wake sandbox");
        }
        _ => debug!(error = %chain(rejection), "request rejected"),
    }
}

/// Logs a failure after the admission.
pub(super) fn proxy_failed(request: Option<&SandboxRequest>, error: &Error) {
    let Some(request) = request else {
        return debug!(error = %chain(error), "failed to forward request");
    };
    let address = &request.peer.address;
    match request.peer.dial_error.get() {
        Some(DialError::Failed { source, .. }) => warn!(
            sandbox.id = %address.sandbox,
            port = %address.port,
            error = %chain(source),
            "failed to connect to guest"
        ),
        _ => debug!(
            sandbox.id = %address.sandbox,
            port = %address.port,
            error = %chain(error),
            "failed to forward request"
        ),
    }
}

/// Logs a response of the gateway that could not be sent.
pub(super) fn response_failed(request: Option<&SandboxRequest>, error: &Error) {
    match request {
        Some(request) => debug!(
            sandbox.id = %request.peer.address.sandbox,
            port = %request.peer.address.port,
            error = %chain(error),
            "failed to send response"
        ),
        None => debug!(error = %chain(error), "failed to send response"),
    }
}
