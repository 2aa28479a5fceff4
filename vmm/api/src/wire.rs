//! Protocol between a host and a monitor.
//!
//! One message is one packet on a `SOCK_SEQPACKET` socket: a [`Request`] or a [`Reply`] in postcard, with the
//! descriptors that its documentation lists attached in that order (`SCM_RIGHTS`). The monitor finds the socket at
//! descriptor 0. It answers requests one at a time and in order; [`Reply::Exited`] and [`Reply::Doorbell`] are
//! unsolicited.

use serde::{Deserialize, Serialize};

/// Maximum message size in bytes.
pub const MESSAGE_LIMIT: usize = 64 * 1024;
/// Maximum number of descriptors attached to a message.
pub const DESCRIPTOR_LIMIT: usize = 200;

/// A request from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Confines the monitor and creates the VM. Attached: the listening socket for streams into the guest, then with a
    /// jail the open `cgroup.procs` file of each of its control groups.
    Prepare {
        /// Virtual CPUs.
        vcpus: u8,
        /// Guest memory in bytes.
        memory: u64,
        /// Whether the guest has the doorbell ports, through which it sends messages without a bound: for tests.
        doorbell: bool,
        /// The jail; `None` leaves the monitor with the privileges of its parent: for development.
        jail: Option<Jail>,
    },
    /// Boots a kernel. Attached: kernel, console, then the disks.
    Boot {
        /// The kernel's command line.
        command_line: String,
        /// The disks.
        disks: Vec<WireDisk>,
    },
    /// Loads a captured guest. Attached: image, console, the memfd if memory is `Cow`, then the disks.
    Load {
        /// The source of guest memory.
        memory: WireMemory,
        /// The disks.
        disks: Vec<WireDisk>,
    },
    /// Runs the vCPUs.
    Resume,
    /// Stops the vCPUs.
    Pause,
    /// Captures the paused machine. Attached: image, pages and page index if `pages_offset` is set, then a bitmap for
    /// each disk.
    Capture {
        /// Offset of page 0 in the pages file; `None` to capture the disk bitmaps only.
        pages_offset: Option<u64>,
        /// Number of disk bitmaps.
        disks: u32,
    },
    /// Seals the top layer of each disk. Attached: for each disk its new sealed layers, if it has some, then its new top
    /// layer.
    Advance {
        /// The disks.
        disks: Vec<WireLayers>,
    },
}

/// The jail of a monitor, which its host has begun: the process is in a PID namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// The user that the monitor becomes, and the group of the same number. No other process has it.
    pub user: u32,
}

/// The source of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireMemory {
    /// A private mapping of the memfd.
    Cow,
    /// The pager that serves the userfaultfd of [`Reply::Pager`].
    Paged,
}

/// A disk. Its descriptors: base, layers from the oldest, top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDisk {
    /// Size in bytes.
    pub size: u64,
    /// Bitmap offset and blocks offset of each layer.
    pub layers: Vec<(u64, u64)>,
    /// Blocks offset of the top layer.
    pub top: u64,
}

/// New layers of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireLayers {
    /// Bitmap offset and blocks offset of each sealed layer; `None` to keep the present layers.
    pub sealed: Option<Vec<(u64, u64)>>,
    /// Blocks offset of the top layer.
    pub top: u64,
}

/// A message from the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The request succeeded.
    Done,
    /// During a load: attach the pager to the attached userfaultfd. The monitor continues without waiting.
    Pager {
        /// Address of guest memory in the monitor's address space.
        base: u64,
        /// Length of guest memory in bytes.
        len: u64,
    },
    /// The machine is loaded and paused. Durations are in nanoseconds.
    Loaded {
        /// Reading and checking the image.
        image: u64,
        /// Mapping memory.
        memory: u64,
        /// Restoring devices and vCPUs.
        state: u64,
    },
    /// The machine is captured.
    Captured {
        /// Bytes of machine state.
        image_len: u64,
        /// Changed pages.
        pages: u64,
        /// Changed pages that are all zeroes.
        zero_pages: u64,
    },
    /// The request was rejected.
    Refused {
        /// Class of the error.
        kind: Refusal,
        /// The error and its sources.
        message: String,
    },
    /// Unsolicited: the machine has ended, and the monitor exits.
    Exited {
        /// The error that ended it; `None` if the guest powered off or reset.
        error: Option<String>,
    },
    /// Unsolicited: the guest rang the doorbell.
    Doorbell {
        /// The value that it wrote.
        value: u32,
    },
}

/// Class of the error of a rejected request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The machine image is invalid.
    Image,
    /// A file has no space left.
    NoSpace,
    /// Any other error.
    Other,
}

/// A message that does not decode.
#[derive(Debug, thiserror::Error)]
#[error("failed to decode message of {len} bytes")]
pub struct Malformed {
    len: usize,
    #[source]
    source: postcard::Error,
}

/// Encodes a message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising these types into a growing vector cannot fail.
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Decodes a message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    postcard::from_bytes(bytes).map_err(|source| Malformed {
        len: bytes.len(),
        source,
    })
}
