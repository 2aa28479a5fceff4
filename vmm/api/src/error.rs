//! Errors of the operations on blanks and machines.

use std::io;

use crate::Exit;

/// Failure to spawn a monitor.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// This host has no usable KVM. The text states the remedy.
    #[error("{0}")]
    NoKvm(String),
    /// This process may not create a userfaultfd.
    #[error(
        "userfaultfd is not permitted: run as root, or give this user access to /dev/userfaultfd, or set the sysctl \
         vm.unprivileged_userfaultfd to 1"
    )]
    NoUserfaultfd,
    /// This process may not make jails.
    #[error(
        "monitors run in jails, which need root: run as root, or with --no-jail to run guests without this protection"
    )]
    NotRoot,
    /// Creating the process or its sockets failed.
    #[error("failed to spawn monitor {program}")]
    Spawn {
        /// Path of the executable.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The monitor could not create the VM, for instance because the spec is out of bounds.
    #[error("failed to create VM: {0}")]
    Prepare(String),
}

/// Failure to boot a kernel. The blank is gone.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The monitor rejected the request for this reason.
    #[error("failed to boot guest: {0}")]
    Refused(String),
    /// The monitor ended or its socket failed.
    #[error("failed to boot guest")]
    Lost(#[source] MachineError),
}

/// Failure to load a guest. The blank is gone.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The image is truncated, altered, of another version, or of a machine of another shape.
    #[error("invalid machine image: {0}")]
    Image(String),
    /// [`crate::Pager::attach`] failed.
    #[error("failed to attach pager")]
    Pager(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The monitor rejected the request for this reason.
    #[error("failed to load guest: {0}")]
    Refused(String),
    /// The monitor ended or its socket failed.
    #[error("failed to load guest")]
    Lost(#[source] MachineError),
}

/// Failure to capture a machine. The machine is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A file of the capture has no space left.
    #[error("no space left for the capture")]
    NoSpace,
    /// The monitor rejected the request for this reason.
    #[error("failed to capture machine: {0}")]
    Refused(String),
    /// The machine ended or the monitor's socket failed.
    #[error("failed to capture machine")]
    Lost(#[source] MachineError),
}

/// Failure of an operation on a machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The monitor rejected the request for this reason.
    #[error("{0}")]
    Refused(String),
    /// The machine has ended.
    #[error("machine has ended: {0}")]
    Gone(Exit),
    /// The monitor's socket failed.
    #[error("failed to communicate with the monitor")]
    Io(#[source] io::Error),
}

/// Failure to open a stream into a guest.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No program in the guest listens on this vsock port.
    #[error("vsock port {0} is closed in the guest")]
    Closed(u32),
    /// The monitor's stream socket failed, or the machine has ended.
    #[error("failed to connect through the monitor")]
    Io(#[source] io::Error),
}
