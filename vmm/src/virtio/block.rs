//! Block device (virtio 1.2 section 5.2) over a [`Disk`].
//!
//! The block size is 4096 bytes, so that every request covers whole blocks. A flush completes immediately: writes
//! become durable with the next snapshot, and without one no state of the guest remains.

use std::io::{Read, Write};

use error_chain::chain;
use virtio_queue::Queue;

use super::{
    disk::{BLOCK_SIZE, Disk},
    queue::{self, Chain, QueueOutcome},
};
use crate::memory::GuestMemory;

const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_BLK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;

// Request types.
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

/// Bytes of a sector, the unit of addresses in requests.
const SECTOR_SIZE: u64 = 512;
/// Maximum request size in bytes.
const REQUEST_LIMIT: usize = 4 << 20;
/// Maximum number of data buffers of a request.
const SEGMENT_LIMIT: u32 = 64;
const ID: &[u8; 20] = b"catnap\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Status of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A block device.
#[derive(Debug)]
pub(crate) struct Block {
    disk: Disk,
}

impl Block {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk }
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn disk_mut(&mut self) -> &mut Disk {
        &mut self.disk
    }

    pub(super) fn features(&self) -> u64 {
        FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH
    }

    pub(super) fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 24];
        config[..8].copy_from_slice(&(self.disk.size() / SECTOR_SIZE).to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENT_LIMIT.to_le_bytes());
        config[20..24].copy_from_slice(&4096_u32.to_le_bytes());
        config
    }

    pub(super) fn process(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> QueueOutcome {
        let Some(requests) = queues.first_mut() else {
            return QueueOutcome::default();
        };
        queue::process(requests, memory, |chain| {
            self.handle_request(chain, memory).unwrap_or(0)
        })
    }

    /// Executes one request and returns the bytes written to its buffers; `None` if it has no room for a status.
    fn handle_request(&mut self, chain: Chain<'_>, memory: &GuestMemory) -> Option<u32> {
        let mut input = chain.clone().reader(memory).ok()?;
        let mut output = chain.writer(memory).ok()?;
        let data_len = output.available_bytes().checked_sub(1)?;
        let mut status_writer = output.split_at(data_len).ok()?;
        let mut header = [0; 16];
        let (status, written) = match input.read_exact(&mut header) {
            Ok(()) => self.execute(&header, &mut input, &mut output, data_len),
            Err(_) => (Status::IoError, 0),
        };
        status_writer.write_all(&[status as u8]).ok()?;
        // The used length counts from the first writable byte; the status follows all data.
        u32::try_from(if written == data_len {
            data_len + 1
        } else {
            written
        })
        .ok()
    }

    fn execute(
        &mut self,
        header: &[u8; 16],
        input: &mut impl Read,
        output: &mut impl Write,
        data_len: usize,
    ) -> (Status, usize) {
        let operation = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = header[8..].try_into().map_or(u64::MAX, u64::from_le_bytes);
        let result = match operation {
            READ => self.read(sector, output, data_len),
            WRITE => self.write(sector, input).map(|()| 0),
            FLUSH => Some(0),
            GET_ID => {
                let len = data_len.min(ID.len());
                output.write_all(&ID[..len]).ok().map(|()| len)
            }
            _ => return (Status::Unsupported, 0),
        };
        result.map_or((Status::IoError, 0), |written| (Status::Ok, written))
    }

    fn read(&self, sector: u64, output: &mut impl Write, len: usize) -> Option<usize> {
        let first = first_block(sector, len)?;
        let mut bytes = vec![0; len];
        self.disk
            .read(first, &mut bytes)
            .inspect_err(|error| {
                tracing::warn!(error = %chain(error), block = first, "failed to read disk");
            })
            .ok()?;
        output.write_all(&bytes).ok()?;
        Some(len)
    }

    fn write(&mut self, sector: u64, input: &mut impl Read) -> Option<()> {
        let mut bytes = Vec::new();
        input
            .take(REQUEST_LIMIT as u64 + 1)
            .read_to_end(&mut bytes)
            .ok()?;
        let first = first_block(sector, bytes.len())?;
        self.disk
            .write(first, &bytes)
            .inspect_err(|error| {
                tracing::warn!(error = %chain(error), block = first, "failed to write disk");
            })
            .ok()
    }
}

/// Returns the first block of a request; `None` if it does not cover whole blocks or is too long.
fn first_block(sector: u64, len: usize) -> Option<u64> {
    let per_block = BLOCK_SIZE as u64 / SECTOR_SIZE;
    (len <= REQUEST_LIMIT && len.is_multiple_of(BLOCK_SIZE) && sector.is_multiple_of(per_block))
        .then_some(sector / per_block)
}
