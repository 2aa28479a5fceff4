//! The boundary of a monitor.

use std::{fmt, io, time::Duration};

use async_trait::async_trait;
use tokio::{net::UnixStream, sync::watch};

use crate::{BlankSpec, BootSpec, CaptureSpec, Captured, LoadSpec, TopLayer};

/// Makes machines.
#[async_trait]
pub trait Hypervisor: fmt::Debug + Send + Sync {
    /// Spawns a monitor that holds no guest yet: process, VM, memory slots and vCPUs made, nothing in them.
    async fn blank(&self, spec: BlankSpec) -> Result<Box<dyn Blank>, SpawnError>;
}

/// A monitor with no guest in it. It is used once; dropping it ends it.
#[async_trait]
pub trait Blank: fmt::Debug + Send + Sync {
    /// Starts a guest from a kernel. It runs when this returns.
    async fn boot(self: Box<Self>, spec: BootSpec) -> Result<Box<dyn Machine>, BootError>;

    /// Takes a guest out of a file. It is paused when this returns.
    async fn load(self: Box<Self>, spec: LoadSpec) -> Result<Box<dyn Machine>, LoadError>;

    /// The monitor's process id.
    fn pid(&self) -> u32;
}

/// A guest on this host. Dropping it kills it.
#[async_trait]
pub trait Machine: fmt::Debug + Send + Sync {
    /// Lets the vCPUs run. Does nothing to a machine that runs.
    async fn resume(&self) -> Result<(), MachineError>;

    /// Stops the vCPUs and the devices. Does nothing to a machine that is paused.
    async fn pause(&self) -> Result<(), MachineError>;

    /// Writes a paused machine down. The machine is not changed and can be resumed or captured again; memory pages are
    /// those changed since the source the machine was loaded from, whatever was captured in between.
    async fn capture(&self, spec: CaptureSpec) -> Result<Captured, CaptureError>;

    /// Seals the top layer of each disk of a paused machine and goes on with new, empty ones, one a disk.
    async fn advance(&self, tops: Vec<TopLayer>) -> Result<(), MachineError>;

    /// Opens a stream to a vsock port of the guest.
    async fn dial(&self, port: u32) -> Result<UnixStream, DialError>;

    /// Kills the machine and returns when its process is gone.
    async fn kill(&self);

    /// Why the machine ended; `None` while it has not.
    fn exit(&self) -> watch::Receiver<Option<Exit>>;

    /// What loading cost; `None` for a machine that was booted.
    fn load_report(&self) -> Option<LoadReport>;

    /// The monitor's process id.
    fn pid(&self) -> u32;
}

/// Why a machine is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The guest asked to be switched off or reset (a panic resets it).
    Guest,
    /// It was killed through this interface.
    Killed,
    /// The monitor gave up, and says why.
    Failed(String),
    /// The monitor's process ended without a word.
    Died(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest => f.write_str("the guest reset or powered off"),
            Self::Killed => f.write_str("killed"),
            Self::Failed(why) => write!(f, "the monitor gave up: {why}"),
            Self::Died(how) => write!(f, "the monitor died: {how}"),
        }
    }
}

/// What loading a machine cost, by the monitor's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Reading and checking the image.
    pub image: Duration,
    /// Mapping memory, or registering it with a pager.
    pub memory: Duration,
    /// The pager's working set. Zero for `Cow`.
    pub prefetch: Duration,
    /// Devices and vCPU state.
    pub state: Duration,
}

/// A monitor that did not come up.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// This host has no usable KVM.
    #[error("{0}")]
    NoKvm(String),
    /// This process may not make a userfaultfd.
    #[error(
        "userfaultfd is not permitted: run as root, or give this user /dev/userfaultfd, or set the sysctl \
         vm.unprivileged_userfaultfd to 1"
    )]
    NoUserfaultfd,
    /// The process or its socket could not be made.
    #[error("spawn monitor {program}")]
    Spawn {
        /// The executable.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It came up and could not prepare a VM.
    #[error("prepare virtual machine: {0}")]
    Prepare(String),
}

/// A guest that did not start from its kernel.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The monitor refused, and says why.
    #[error("boot guest: {0}")]
    Refused(String),
    /// The monitor is gone.
    #[error("boot guest")]
    Lost(#[source] MachineError),
}

/// A guest that could not be taken out of its file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The image is not what it should be: cut short, altered, of another version or another machine.
    #[error("machine image is not usable: {0}")]
    Image(String),
    /// The pager could not take over.
    #[error("attach pager")]
    Pager(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The monitor refused, and says why.
    #[error("load guest: {0}")]
    Refused(String),
    /// The monitor is gone.
    #[error("load guest")]
    Lost(#[source] MachineError),
}

/// A capture that failed. The machine is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no space left for it.
    #[error("no space left for the capture")]
    NoSpace,
    /// The monitor refused, and says why.
    #[error("capture guest: {0}")]
    Refused(String),
    /// The monitor is gone.
    #[error("capture guest")]
    Lost(#[source] MachineError),
}

/// A machine that did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The monitor refused, and says why.
    #[error("{0}")]
    Refused(String),
    /// The machine ended.
    #[error("the machine is gone: {0}")]
    Gone(Exit),
    /// Its socket failed.
    #[error("talk to the monitor")]
    Io(#[source] io::Error),
}

/// A stream into a guest that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing in the guest listens on the vsock port.
    #[error("vsock port {0} is not open in the guest")]
    Closed(u32),
    /// The monitor's socket failed.
    #[error("connect through the monitor")]
    Io(#[source] io::Error),
}
