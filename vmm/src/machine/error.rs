//! Errors of machines, with the KVM or I/O operation that failed.

use std::io;

use super::vm::VmError;
use crate::{arch::boot, image::ImageError, vcpu::StateError};

/// Failure of an operation on a machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("failed to create VM")]
    Vm(#[from] VmError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{0}")]
    Incompatible(String),
    #[error("failed to load kernel")]
    Boot(#[from] boot::BootError),
    #[error("failed to {0}")]
    Kvm(&'static str, #[source] kvm_ioctls::Error),
    #[error("vCPU {id}")]
    Vcpu {
        id: usize,
        #[source]
        source: StateError,
    },
    #[error("failed to {0}")]
    Io(&'static str, #[source] io::Error),
    #[error("failed to create device queues")]
    Queue(#[source] virtio_queue::Error),
}

/// Adds the operation to the error of a KVM call.
pub(super) fn kvm_context<T>(
    operation: &'static str,
    result: Result<T, kvm_ioctls::Error>,
) -> Result<T, MachineError> {
    result.map_err(|error| MachineError::Kvm(operation, error))
}

/// Adds the operation to an I/O error.
pub(super) fn io_context<T>(
    operation: &'static str,
    result: io::Result<T>,
) -> Result<T, MachineError> {
    result.map_err(|error| MachineError::Io(operation, error))
}

/// Builds the error of an image that does not fit the machine.
pub(super) fn incompatible(reason: &str) -> MachineError {
    MachineError::Incompatible(reason.to_owned())
}
