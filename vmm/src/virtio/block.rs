//! Block device (virtio 1.2 section 5.2) over a [`Disk`].
//!
//! The block size is 4096 bytes, so that every request covers whole blocks. A flush completes immediately: writes
//! become durable with the next snapshot, and without one no state of the guest remains. A write that finds the host's
//! filesystem full waits ([`super::space`]).

use std::{
    io::{self, Read, Write},
    os::fd::OwnedFd,
    time::Instant,
};

use error_chain::chain;
use virtio_queue::Queue;

use super::{
    disk::{BLOCK_SIZE, Disk},
    queue::{self, Chain, QueueOutcome},
    space::SpaceWait,
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
    space: SpaceWait,
}

/// A request that stays in its queue.
#[derive(Debug)]
struct Waits;

impl Block {
    pub(crate) fn new(disk: Disk) -> io::Result<Self> {
        Ok(Self {
            disk,
            space: SpaceWait::new()?,
        })
    }

    /// Duplicates the descriptor that becomes readable when a write begins to wait for space on the host.
    pub(crate) fn space_event(&self) -> io::Result<OwnedFd> {
        self.space.begun()
    }

    /// Returns whether a write waits for space on the host.
    pub(crate) fn is_waiting(&self) -> bool {
        self.space.is_waiting()
    }

    /// Tries the waiting write again, and processes the requests behind it.
    pub(crate) fn retry(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
        now: Instant,
    ) -> QueueOutcome {
        self.space.begin_retry(now);
        let outcome = self.process(queues, memory);
        self.space.end_retry();
        outcome
    }

    pub(super) fn reset(&mut self) {
        self.space.reset();
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

    /// Executes the available requests, unless one waits.
    pub(crate) fn process(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> QueueOutcome {
        let (Some(requests), false) = (queues.first_mut(), self.space.is_waiting()) else {
            return QueueOutcome::default();
        };
        queue::process(requests, memory, |chain| {
            match self.handle_request(chain, memory) {
                Ok(written) => Some(written.unwrap_or(0)),
                Err(Waits) => None,
            }
        })
    }

    /// Executes one request and returns the bytes written to its buffers; `None` if it has no room for a status.
    fn handle_request(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemory,
    ) -> Result<Option<u32>, Waits> {
        let (Ok(mut input), Ok(mut output)) = (chain.clone().reader(memory), chain.writer(memory))
        else {
            return Ok(None);
        };
        let Some(data_len) = output.available_bytes().checked_sub(1) else {
            return Ok(None);
        };
        let Ok(mut status_writer) = output.split_at(data_len) else {
            return Ok(None);
        };
        let mut header = [0; 16];
        let (status, written) = match input.read_exact(&mut header) {
            Ok(()) => self.execute(&header, &mut input, &mut output, data_len)?,
            Err(_) => (Status::IoError, 0),
        };
        if status_writer.write_all(&[status as u8]).is_err() {
            return Ok(None);
        }
        // The used length counts from the first writable byte; the status follows all data.
        let used = if written == data_len {
            data_len + 1
        } else {
            written
        };
        Ok(u32::try_from(used).ok())
    }

    fn execute(
        &mut self,
        header: &[u8; 16],
        input: &mut impl Read,
        output: &mut impl Write,
        data_len: usize,
    ) -> Result<(Status, usize), Waits> {
        let operation = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = header[8..].try_into().map_or(u64::MAX, u64::from_le_bytes);
        let result = match operation {
            READ => self.read(sector, output, data_len),
            WRITE => self.write(sector, input)?.map(|()| 0),
            FLUSH => Some(0),
            GET_ID => {
                let len = data_len.min(ID.len());
                output.write_all(&ID[..len]).ok().map(|()| len)
            }
            _ => return Ok((Status::Unsupported, 0)),
        };
        Ok(result.map_or((Status::IoError, 0), |written| (Status::Ok, written)))
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

    fn write(&mut self, sector: u64, input: &mut impl Read) -> Result<Option<()>, Waits> {
        let mut bytes = Vec::new();
        let read = input.take(REQUEST_LIMIT as u64 + 1).read_to_end(&mut bytes);
        let (Ok(_), Some(first)) = (read, first_block(sector, bytes.len())) else {
            return Ok(None);
        };
        match self.disk.write(first, &bytes) {
            Ok(()) => {
                self.space.written();
                Ok(Some(()))
            }
            Err(error) if is_full(&error) && self.space.no_space() => Err(Waits),
            Err(error) => {
                tracing::warn!(error = %chain(&error), block = first, "failed to write disk");
                Ok(None)
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Returns the first block of a request; `None` if it does not cover whole blocks or is too long.
fn first_block(sector: u64, len: usize) -> Option<u64> {
    let per_block = BLOCK_SIZE as u64 / SECTOR_SIZE;
    (len <= REQUEST_LIMIT && len.is_multiple_of(BLOCK_SIZE) && sector.is_multiple_of(per_block))
        .then_some(sector / per_block)
}
