//! What goes over the socket between a host and a monitor.
//!
//! One message is one packet of a `SOCK_SEQPACKET` socket: a [`Request`] or a [`Reply`] in postcard, with the
//! descriptors it names beside it, in the order its documentation gives. The monitor finds the socket at descriptor 0.
//! Requests are answered one at a time and in order; [`Reply::Exited`] and [`Reply::Doorbell`] come unasked.

use serde::{Deserialize, Serialize};

/// Bytes of the largest message.
pub const MESSAGE_LIMIT: usize = 64 * 1024;
/// Descriptors of the largest message.
pub const DESCRIPTOR_LIMIT: usize = 200;

/// What a host asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make the VM. Beside it: the listening socket for streams into the guest.
    Prepare {
        /// Virtual CPUs.
        vcpus: u8,
        /// Guest memory in bytes.
        memory: u64,
    },
    /// Boot. Beside it: kernel, console, then the disks.
    Boot {
        /// The kernel's command line.
        command_line: String,
        /// The disks.
        disks: Vec<WireDisk>,
    },
    /// Load. Beside it: image, console, the memfd if memory is `Cow`, then the disks.
    Load {
        /// How memory arrives.
        memory: WireMemory,
        /// The disks.
        disks: Vec<WireDisk>,
    },
    /// Let the vCPUs run.
    Resume,
    /// Stop them.
    Pause,
    /// Write the paused machine down. Beside it: image, pages and page index, if memory is wanted, then a bitmap for
    /// each disk.
    Capture {
        /// Where page 0 would lie in the pages file. `None`: the disks alone are wanted.
        pages_offset: Option<u64>,
        /// How many disk bitmaps there are.
        disks: u32,
    },
    /// Seal the disks' tops. Beside it: the new tops.
    Advance {
        /// For each disk, where block 0 would lie in its new top.
        blocks_offsets: Vec<u64>,
    },
}

/// How memory arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireMemory {
    /// By a private map of the memfd.
    Cow,
    /// By whoever answers the userfaultfd of [`Reply::Pager`].
    Paged,
}

/// A disk. Its descriptors: base, layers oldest first, top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDisk {
    /// Size in bytes.
    pub size: u64,
    /// Bitmap offset and blocks offset of each layer.
    pub layers: Vec<(u64, u64)>,
    /// Blocks offset of the top.
    pub top: u64,
}

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// While loading: attach the pager to the userfaultfd beside this. The monitor does not wait.
    Pager {
        /// Address of guest memory in the monitor.
        base: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The machine is loaded and paused. Nanoseconds for image, memory and state.
    Loaded {
        /// Reading and checking the image.
        image: u64,
        /// Mapping memory.
        memory: u64,
        /// Devices and vCPUs.
        state: u64,
    },
    /// The machine is written down.
    Captured {
        /// Bytes of machine state.
        image_len: u64,
        /// Changed pages.
        pages: u64,
        /// Changed pages that are zero.
        zero_pages: u64,
    },
    /// It cannot be done.
    Refused {
        /// What kind of reason.
        kind: Refusal,
        /// The reason.
        message: String,
    },
    /// Unasked: the machine is no more; the monitor ends.
    Exited {
        /// Why, unless the guest itself asked for it.
        trouble: Option<String>,
    },
    /// Unasked: the guest wrote this to the doorbell port.
    Doorbell {
        /// What it wrote.
        value: u32,
    },
}

/// What kind of reason a refusal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The machine image is not usable.
    Image,
    /// No space left.
    NoSpace,
    /// Anything else.
    Other,
}

/// The I/O port on which a guest rings the doorbell with a 32-bit write. Linux guests never do.
pub const DOORBELL_PORT: u16 = 0x510;
/// The I/O port on which a vCPU rings and then stands still until the machine is paused and resumed.
pub const DOORBELL_WAIT_PORT: u16 = 0x514;

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
#[error("message of {len} bytes does not decode")]
pub struct Malformed {
    len: usize,
    #[source]
    source: postcard::Error,
}

/// The bytes of a message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising these types into a growing vector has no way to fail.
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Reads a message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    postcard::from_bytes(bytes).map_err(|source| Malformed {
        len: bytes.len(),
        source,
    })
}
