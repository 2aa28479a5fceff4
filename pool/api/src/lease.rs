//! Leases on running sandboxes, and the report of a wake.

use std::{fmt, io, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::{Epoch, Port};

/// The right to use a running sandbox. A sandbox with a lease is not paused for idleness; an explicit pause, a rollback
/// or a kill revokes its leases first.
#[async_trait]
#[must_use = "the sandbox may be paused as soon as the lease is dropped"]
pub trait Lease: fmt::Debug + Send + Sync {
    /// Returns the epoch of the sandbox that this lease is for.
    fn epoch(&self) -> Epoch;

    /// Returns the wake's report, if acquiring this lease waited for a wake.
    fn wake(&self) -> Option<&WakeReport>;

    /// Connects to `127.0.0.1:port` inside the guest, or `[::1]:port` if only that listens.
    async fn dial(&self, port: Port) -> Result<UnixStream, DialError>;

    /// Completes when the lease is revoked: the holder must stop using the sandbox and drop the lease.
    async fn revoked(&self);
}

/// Failure of [`Lease::dial`].
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No process listens on the port.
    #[error("port {0} is not open in the guest")]
    Closed(Port),
    /// The lease is revoked or the machine has ended.
    #[error("the sandbox is no longer running")]
    Gone,
    /// The monitor or the guest agent broke the protocol or did not respond.
    #[error("failed to connect to port {port} of the guest")]
    Failed {
        /// The requested port.
        port: Port,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The start of a machine, stage by stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WakeReport {
    /// The kind of start.
    pub start: Start,
    /// The duration of each stage, in order.
    pub stages: Vec<(Stage, Duration)>,
}

/// The kinds of machine start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Start {
    /// From a kernel and disks.
    Boot,
    /// A new identity, from a snapshot.
    Fork,
    /// The same identity, from its own snapshot.
    Restore,
    /// The pause in progress ended by resuming the machine.
    Unpause,
}

/// A stage of a machine start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Waiting for room on the host or for a transition to end.
    Queue,
    /// Taking a spawned monitor from the pool, or spawning one.
    Blank,
    /// Opening and checking the snapshot.
    Open,
    /// Mapping memory and setting the vCPU and device state.
    Load,
    /// Installing the working set.
    Prefetch,
    /// The guest init call, until the agent answered.
    GuestInit,
}

impl Stage {
    /// Returns the name in `Server-Timing` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Blank => "blank",
            Self::Open => "open",
            Self::Load => "load",
            Self::Prefetch => "prefetch",
            Self::GuestInit => "awaken",
        }
    }
}

impl Start {
    /// Returns the name in `Server-Timing` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Fork => "fork",
            Self::Restore => "restore",
            Self::Unpause => "unpause",
        }
    }
}
