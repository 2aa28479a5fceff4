//! Hypervisor, blank and machine: the boundary of a monitor.
//!
//! Every sentence of these doc comments is a promise; [`crate::contract`] has a row for each. An asynchronous call that
//! is dropped before it returns may still take effect, and never affects the result of a later call.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::{net::UnixStream, sync::watch};

use crate::{
    BlankSpec, BootError, BootSpec, CaptureError, CaptureSpec, Captured, DialError, Exit,
    LoadError, LoadSpec, MachineError, NextLayers, SpawnError,
};

/// Creates machines.
#[async_trait]
pub trait Hypervisor: fmt::Debug + Send + Sync {
    /// Spawns a monitor with a VM and no guest. A spec out of its bounds is refused with [`SpawnError::Prepare`], a
    /// missing run directory with [`SpawnError::Spawn`].
    async fn blank(&self, spec: BlankSpec) -> Result<Box<dyn Blank>, SpawnError>;

    /// Waits until the process of every blank and machine has ended. Those that are not dropped or killed keep it waiting.
    async fn drained(&self);
}

/// A monitor without a guest. It is used once. Dropping it ends its process.
#[async_trait]
pub trait Blank: fmt::Debug + Send + Sync {
    /// Boots a kernel and returns a running machine. An invalid kernel is [`BootError::Refused`].
    async fn boot(self: Box<Self>, spec: BootSpec) -> Result<Box<dyn Machine>, BootError>;

    /// Loads a captured guest and returns a paused machine. The guest continues where it was captured. Machines loaded
    /// from the same source share nothing that they write. An image that is truncated, altered, or of another size of
    /// memory, number of vCPUs or disks is [`LoadError::Image`]. A memory file of another size is
    /// [`LoadError::Refused`]. A pager that fails to attach is [`LoadError::Pager`].
    async fn load(self: Box<Self>, spec: LoadSpec) -> Result<Box<dyn Machine>, LoadError>;

    /// Returns the process id of the monitor.
    fn pid(&self) -> u32;

    /// Returns whether the monitor's process has not ended.
    fn is_alive(&self) -> bool;
}

/// A machine with its guest. Dropping it kills it. Once it has ended, [`Machine::resume`], [`Machine::pause`] and
/// [`Machine::advance`] fail with [`MachineError::Gone`], [`Machine::capture`] with [`CaptureError::Lost`] of the same,
/// and [`Machine::dial`] with [`DialError::Io`].
#[async_trait]
pub trait Machine: fmt::Debug + Send + Sync {
    /// Runs the vCPUs. Resuming a running machine has no effect.
    async fn resume(&self) -> Result<(), MachineError>;

    /// Stops the vCPUs and the devices. Pausing a paused machine has no effect.
    async fn pause(&self) -> Result<(), MachineError>;

    /// Writes state, memory and disk bitmaps of a paused machine to files; a running one is [`CaptureError::Refused`].
    /// The machine stays paused and unchanged and can be captured again or resumed. Memory pages are those written
    /// since the machine booted or since the source it was loaded from, whatever was captured in between. Without
    /// [`CaptureSpec::machine`] only the disk bitmaps are written. A number of bitmaps other than that of the disks is
    /// [`CaptureError::Refused`]. A file without space left is [`CaptureError::NoSpace`] and leaves the machine as it
    /// was.
    async fn capture(&self, spec: CaptureSpec) -> Result<Captured, CaptureError>;

    /// Seals the top layer of each disk of a paused machine and directs later writes to new ones; `disks` has one entry
    /// for each disk. Sealed layers that an entry replaces are closed. A running machine, another number of disks, or a
    /// sealed layer that cannot be read is [`MachineError::Refused`] and changes nothing.
    async fn advance(&self, disks: Vec<NextLayers>) -> Result<(), MachineError>;

    /// Opens a stream to a vsock port of the guest. A port that no program listens on is [`DialError::Closed`]. The
    /// call waits while the machine is paused.
    async fn dial(&self, port: u32) -> Result<UnixStream, DialError>;

    /// Kills the machine and returns when its process has ended. Killing an ended machine has no effect.
    async fn kill(&self);

    /// Watches for the end of the machine: `None` while it exists, then the reason.
    fn exit(&self) -> watch::Receiver<Option<Exit>>;

    /// Returns how long loading took; `None` for a machine that was booted.
    fn load_report(&self) -> Option<LoadReport>;

    /// Returns the process id of the monitor.
    fn pid(&self) -> u32;
}

/// Durations of the stages of [`Blank::load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Reading and checking the image.
    pub image: Duration,
    /// Mapping memory, or registering it with the userfaultfd.
    pub memory: Duration,
    /// Installing the pager's working set. Zero for [`crate::MemorySource::Cow`].
    pub prefetch: Duration,
    /// Restoring devices and vCPUs.
    pub state: Duration,
}
