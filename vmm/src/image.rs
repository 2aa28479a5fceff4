//! Machine image: the state of a machine, without memory and disks, in a file.
//!
//! ```text
//! magic 8 | version 4 | reserved 4 | payload length 8 | BLAKE3 of the payload 32 | payload
//! ```
//!
//! Numbers are little-endian; the payload is a [`MachineState`] in postcard. Reading checks length, digest and every
//! part before any of it reaches a VM. The version changes with the payload.

use std::{
    fs::File,
    io::{self, Read},
};

use kvm_bindings::{kvm_clock_data, kvm_irqchip};
use serde::{Deserialize, Serialize};

use crate::{serial::SerialRegisters, vcpu::VcpuState, virtio::TransportState};

const MAGIC: [u8; 8] = *b"CATNAPVM";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 56;
/// Maximum payload size in bytes, sufficient for 255 vCPUs.
const PAYLOAD_LIMIT: u64 = 16 << 20;

/// State of a machine without memory and disks.
#[derive(Serialize, Deserialize)]
pub(crate) struct MachineState {
    /// Vendor and model of the processor, which must match on load.
    pub(crate) processor: [u32; 4],
    /// Guest memory in bytes.
    pub(crate) memory: u64,
    /// State of each vCPU.
    pub(crate) vcpus: Vec<VcpuState>,
    /// Both PICs and the I/O APIC.
    pub(crate) interrupts: Vec<kvm_irqchip>,
    /// The guest's kvm-clock.
    pub(crate) clock: kvm_clock_data,
    /// The serial console.
    pub(crate) serial: SerialRegisters,
    /// The virtio devices, in the order of their addresses.
    pub(crate) devices: Vec<TransportState>,
}

/// Failure to read a machine image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("truncated: {have} of {need} bytes")]
    Truncated { have: u64, need: u64 },
    #[error("wrong magic number")]
    Magic,
    #[error("version {0} is not supported, only {VERSION}")]
    Version(u32),
    #[error("payload length {0} exceeds {PAYLOAD_LIMIT}")]
    TooLong(u64),
    #[error("digest mismatch: the file was altered")]
    Digest,
    #[error("failed to decode payload")]
    Content(#[source] postcard::Error),
    #[error("failed to read file")]
    Io(#[from] io::Error),
}

impl MachineState {
    /// Reads and checks an image.
    pub(crate) fn read(file: &File) -> Result<Self, ImageError> {
        let mut bytes = Vec::new();
        let mut file = file;
        io::Seek::rewind(&mut file)?;
        file.take(HEADER_LEN as u64 + PAYLOAD_LIMIT + 1)
            .read_to_end(&mut bytes)?;
        Self::decode(&bytes)
    }

    /// Encodes the image.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, ImageError> {
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
        let truncated = |need| ImageError::Truncated { have, need };
        let header = || truncated(HEADER_LEN as u64);
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(header)?;
        if *magic != MAGIC {
            return Err(ImageError::Magic);
        }
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(header)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(ImageError::Version(version));
        }
        let (_reserved, rest) = rest.split_first_chunk::<4>().ok_or_else(header)?;
        let (len, rest) = rest.split_first_chunk::<8>().ok_or_else(header)?;
        let len = u64::from_le_bytes(*len);
        if len > PAYLOAD_LIMIT {
            return Err(ImageError::TooLong(len));
        }
        let need = HEADER_LEN as u64 + len;
        let (digest, payload) = rest
            .split_first_chunk::<32>()
            .ok_or_else(|| truncated(need))?;
        if payload.len() as u64 != len {
            return Err(truncated(need));
        }
        if blake3::hash(payload) != blake3::Hash::from_bytes(*digest) {
            return Err(ImageError::Digest);
        }
        postcard::from_bytes(payload).map_err(ImageError::Content)
    }
}

#[cfg(test)]
mod tests;
