//! Errors of requests, as the host receives them.

use std::{fmt, io, os::fd::OwnedFd};

use error_chain::chain;
use vmm_api::wire::{Refusal, Reply};

use crate::machine::MachineError;

/// Failure of a request.
#[derive(Debug)]
pub(super) struct RequestError {
    kind: Refusal,
    message: String,
}

impl RequestError {
    pub(super) fn new(message: impl fmt::Display) -> Self {
        Self {
            kind: Refusal::Other,
            message: message.to_string(),
        }
    }

    pub(super) fn no_guest() -> Self {
        Self::new("the monitor has no guest")
    }

    /// Reports a failed write to a file of a capture.
    pub(super) fn write(file: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::NoSpace,
            _ => Refusal::Other,
        };
        Self {
            kind,
            message: format!("failed to write {file}: {error}"),
        }
    }
}

impl From<MachineError> for RequestError {
    fn from(error: MachineError) -> Self {
        let kind = match error {
            MachineError::Image(_) | MachineError::Incompatible(_) => Refusal::Image,
            _ => Refusal::Other,
        };
        Self {
            kind,
            message: chain(&error).to_string(),
        }
    }
}

impl From<RequestError> for Reply {
    fn from(error: RequestError) -> Self {
        Self::Refused {
            kind: error.kind,
            message: error.message,
        }
    }
}

/// Takes the next descriptor attached to a request.
pub(super) fn next_fd(fds: &mut impl Iterator<Item = OwnedFd>) -> Result<OwnedFd, RequestError> {
    fds.next()
        .ok_or_else(|| RequestError::new("the request lacks a descriptor"))
}
