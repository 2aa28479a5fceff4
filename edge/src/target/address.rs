//! Ports of sandboxes, as hosts, headers and paths address them.

use http::{HeaderMap, HeaderName, HeaderValue};
use pool_api::{Port, SandboxId};

use super::error::TargetError;

const ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");

/// A port of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The sandbox.
    pub(crate) sandbox: SandboxId,
    /// The port inside its guest.
    pub(crate) port: Port,
}

/// A header that must be unique occurs more than once.
pub(super) struct DuplicateHeader;

impl Address {
    /// Parses an id and a port.
    pub(super) fn parse(id: &str, port: &str) -> Result<Self, TargetError> {
        Ok(Self {
            sandbox: SandboxId::from_wire(id).map_err(|_| TargetError::SandboxId)?,
            port: port.parse().map_err(|_| TargetError::Port)?,
        })
    }

    /// Parses the first label of a host. `None`: it does not begin with a number and `-`, so it addresses no sandbox.
    pub(super) fn from_label(label: &str) -> Result<Option<Self>, TargetError> {
        let Some((port, id)) = label.split_once('-') else {
            return Ok(None);
        };
        if port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit()) {
            return Ok(None);
        }
        let port: Port = port.parse().map_err(|_| TargetError::Port)?;
        let id = id.split('-').next().unwrap_or_default();
        let sandbox = SandboxId::from_wire(id).map_err(|_| TargetError::SandboxId)?;
        Ok(Some(Self { sandbox, port }))
    }

    /// Parses the routing headers. `None`: neither is present.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, TargetError> {
        let id = unique(headers, &ID).map_err(|DuplicateHeader| TargetError::SandboxId)?;
        let port = unique(headers, &PORT).map_err(|DuplicateHeader| TargetError::Port)?;
        match (id, port) {
            (None, None) => Ok(None),
            (Some(id), Some(port)) => {
                let id = id.to_str().map_err(|_| TargetError::SandboxId)?;
                // A value that is not ASCII is not a port.
                Self::parse(id, port.to_str().unwrap_or_default()).map(Some)
            }
            _ => Err(TargetError::MissingHeader),
        }
    }
}

/// Returns the only value of a header.
pub(super) fn unique<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, DuplicateHeader> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        Err(DuplicateHeader)
    } else {
        Ok(first)
    }
}
