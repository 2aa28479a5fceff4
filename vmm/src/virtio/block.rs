//! The block device (virtio 1.2 section 5.2) over a [`Disk`].
//!
//! Its sector is one block of 4096 bytes, so that every request covers whole blocks. A flush is answered at once: what a
//! running guest has written becomes durable with the next snapshot, and without one nothing of the guest is left anyway.

use std::io::{Read, Write};

use virtio_queue::Queue;

use super::{
    Served,
    disk::{BLOCK, Disk},
    queue::{self, Chain},
};
use crate::memory::GuestMemory;

const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_BLK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;

/// Bytes of a sector in requests, whatever the block size.
const SECTOR: u64 = 512;
/// Bytes of the largest request.
const LIMIT: usize = 4 << 20;
/// Buffers of the largest request.
const SEGMENTS: u32 = 64;
const ID: &[u8; 20] = b"catnap\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// How a request ended.
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
        config[..8].copy_from_slice(&(self.disk.size() / SECTOR).to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS.to_le_bytes());
        config[20..24].copy_from_slice(&4096_u32.to_le_bytes());
        config
    }

    pub(super) fn serve(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> Served {
        let Some(requests) = queues.first_mut() else {
            return Served::default();
        };
        queue::serve(requests, memory, |chain| {
            self.request(chain, memory).unwrap_or(0)
        })
    }

    /// Carries out one request: bytes written into its buffers, `None` when it has no place for a status.
    fn request(&mut self, chain: Chain<'_>, memory: &GuestMemory) -> Option<u32> {
        let mut input = chain.clone().reader(memory).ok()?;
        let mut output = chain.writer(memory).ok()?;
        let room = output.available_bytes().checked_sub(1)?;
        let mut answer = output.split_at(room).ok()?;
        let mut header = [0; 16];
        let (status, written) = match input.read_exact(&mut header) {
            Ok(()) => self.carry_out(&header, &mut input, &mut output, room),
            Err(_) => (Status::IoError, 0),
        };
        answer.write_all(&[status as u8]).ok()?;
        // Used length counts from the first writable byte; the status lies behind all data.
        u32::try_from(if written == room { room + 1 } else { written }).ok()
    }

    fn carry_out(
        &mut self,
        header: &[u8; 16],
        input: &mut impl Read,
        output: &mut impl Write,
        room: usize,
    ) -> (Status, usize) {
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = header[8..].try_into().map_or(u64::MAX, u64::from_le_bytes);
        let done = match kind {
            0 => self.read(sector, output, room),
            1 => self.write(sector, input).map(|()| 0),
            4 => Some(0),
            8 => {
                let len = room.min(ID.len());
                output.write_all(&ID[..len]).ok().map(|()| len)
            }
            _ => return (Status::Unsupported, 0),
        };
        done.map_or((Status::IoError, 0), |written| (Status::Ok, written))
    }

    fn read(&self, sector: u64, output: &mut impl Write, len: usize) -> Option<usize> {
        let first = block_of(sector, len)?;
        let mut bytes = vec![0; len];
        self.disk
            .read(first, &mut bytes)
            .inspect_err(|error| log(error, "read", first))
            .ok()?;
        output.write_all(&bytes).ok()?;
        Some(len)
    }

    fn write(&mut self, sector: u64, input: &mut impl Read) -> Option<()> {
        let mut bytes = Vec::new();
        input.take(LIMIT as u64 + 1).read_to_end(&mut bytes).ok()?;
        let first = block_of(sector, bytes.len())?;
        self.disk
            .write(first, &bytes)
            .inspect_err(|error| log(error, "write", first))
            .ok()
    }
}

/// The block a request begins with; `None` when it does not cover whole blocks or is too long.
fn block_of(sector: u64, len: usize) -> Option<u64> {
    let per_block = BLOCK as u64 / SECTOR;
    (len <= LIMIT && len.is_multiple_of(BLOCK) && sector.is_multiple_of(per_block))
        .then_some(sector / per_block)
}

fn log(error: &std::io::Error, what: &str, block: u64) {
    tracing::warn!(%error, block, "{what} disk");
}
