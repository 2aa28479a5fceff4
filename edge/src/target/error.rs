//! Requests that address neither the API nor a port of a sandbox.

/// An invalid target. The text is the body of the 400 response; E2B clients match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// The host is not a host name, or an unknown subdomain of the gateway's own domain.
    #[error("Invalid host")]
    Host,
    /// The sandbox id is malformed.
    #[error("Invalid sandbox ID")]
    SandboxId,
    /// The port is malformed.
    #[error("Invalid sandbox port")]
    Port,
    /// Only one of the two routing headers is present, or neither where both are required.
    #[error("missing header")]
    MissingHeader,
    /// The request target is neither a path nor an absolute URL.
    #[error("Invalid request target")]
    RequestTarget,
}
