//! A machine in a file.
//!
//! ```text
//! magic 8 | version 4 | reserved 4 | payload length 8 | BLAKE3 of the payload 32 | payload
//! ```
//!
//! Numbers are little-endian, the payload is a [`MachineState`] in postcard. A reader takes nothing for granted: length,
//! digest and every part are checked before a machine is touched. The version changes with anything in the payload.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use kvm_bindings::{kvm_clock_data, kvm_irqchip};
use serde::{Deserialize, Serialize};

use crate::{serial::Registers, vcpu::VcpuState, virtio::TransportState};

const MAGIC: [u8; 8] = *b"CATNAPVM";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 56;
/// Bytes of the largest payload: room for 255 vCPUs.
const LIMIT: u64 = 16 << 20;

/// All of a machine but its memory and disks.
#[derive(Serialize, Deserialize)]
pub(crate) struct MachineState {
    /// The processor it ran on (vendor and model), which must be like the one it goes on with.
    pub(crate) processor: [u32; 4],
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// One a vCPU.
    pub(crate) vcpus: Vec<VcpuState>,
    /// Both legacy controllers and the I/O APIC.
    pub(crate) interrupts: Vec<kvm_irqchip>,
    /// The guest's clock.
    pub(crate) clock: kvm_clock_data,
    /// The serial console.
    pub(crate) serial: Registers,
    /// The virtio devices, in the order of their addresses.
    pub(crate) devices: Vec<TransportState>,
}

/// A file that is no machine image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("it is cut short: {have} of {need} bytes")]
    Short { have: u64, need: u64 },
    #[error("it does not begin like one")]
    Magic,
    #[error("it is of version {0}, and this monitor reads version {VERSION}")]
    Version(u32),
    #[error("its length of {0} bytes is more than any machine has")]
    Long(u64),
    #[error("its digest does not match: it was altered")]
    Digest,
    #[error("its content does not decode")]
    Content(#[source] postcard::Error),
    #[error("read it")]
    Io(#[from] io::Error),
}

impl MachineState {
    /// Writes the state to an empty file: bytes written.
    pub(crate) fn write(&self, file: &File) -> Result<u64, ImageError> {
        let bytes = self.encode()?;
        file.write_all_at(&bytes, 0)?;
        Ok(bytes.len() as u64)
    }

    /// Reads a state from a file.
    pub(crate) fn read(file: &File) -> Result<Self, ImageError> {
        let mut bytes = Vec::new();
        let mut file = file;
        io::Seek::rewind(&mut file)?;
        file.take(HEADER_LEN as u64 + LIMIT + 1)
            .read_to_end(&mut bytes)?;
        Self::decode(&bytes)
    }

    fn encode(&self) -> Result<Vec<u8>, ImageError> {
        let payload = postcard::to_stdvec(self).map_err(ImageError::Content)?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend_from_slice(blake3::hash(&payload).as_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let have = bytes.len() as u64;
        let short = |need| ImageError::Short { have, need };
        let (magic, rest) = bytes
            .split_first_chunk::<8>()
            .ok_or(short(HEADER_LEN as u64))?;
        if *magic != MAGIC {
            return Err(ImageError::Magic);
        }
        let (version, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(short(HEADER_LEN as u64))?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(ImageError::Version(version));
        }
        let (_, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(short(HEADER_LEN as u64))?;
        let (len, rest) = rest
            .split_first_chunk::<8>()
            .ok_or(short(HEADER_LEN as u64))?;
        let len = u64::from_le_bytes(*len);
        if len > LIMIT {
            return Err(ImageError::Long(len));
        }
        let (digest, payload) = rest
            .split_first_chunk::<32>()
            .ok_or(short(HEADER_LEN as u64 + len))?;
        if payload.len() as u64 != len {
            return Err(short(HEADER_LEN as u64 + len));
        }
        if blake3::hash(payload) != blake3::Hash::from_bytes(*digest) {
            return Err(ImageError::Digest);
        }
        postcard::from_bytes(payload).map_err(ImageError::Content)
    }
}

#[cfg(test)]
mod test;
