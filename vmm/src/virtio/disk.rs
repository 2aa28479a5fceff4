//! Disk: read-only layers over a base image, under a writable top layer.
//!
//! A block of 4096 bytes is read from the topmost layer that has it, else from the base. The bitmaps of the layers are
//! in memory: 32 KiB for each GiB.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// Bytes of a block.
pub(crate) const BLOCK_SIZE: usize = 4096;

/// A disk of layers.
#[derive(Debug)]
pub(crate) struct Disk {
    blocks: u64,
    base: File,
    layers: Vec<Layer>,
    top: Layer,
}

/// Layers that the guest does not write, oldest first.
#[derive(Debug)]
pub(crate) struct SealedLayers(Vec<Layer>);

#[derive(Debug)]
struct Layer {
    file: File,
    present: Vec<u8>,
    blocks_offset: u64,
}

/// Failure to open a disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("disk size of {0} bytes is not a multiple of 4096")]
    Size(u64),
    #[error("failed to read bitmap of disk layer {layer}")]
    Bitmap {
        layer: usize,
        #[source]
        source: io::Error,
    },
}

impl Disk {
    /// Opens a disk from its base, its layers with their bitmap and blocks offsets, oldest first, and an empty top
    /// layer.
    pub(crate) fn new(
        size: u64,
        base: File,
        layers: Vec<(File, u64, u64)>,
        top: File,
        top_offset: u64,
    ) -> Result<Self, DiskError> {
        if size == 0 || !size.is_multiple_of(BLOCK_SIZE as u64) {
            return Err(DiskError::Size(size));
        }
        let blocks = size / BLOCK_SIZE as u64;
        let bitmap_len = bitmap_len(blocks).ok_or(DiskError::Size(size))?;
        let sealed = SealedLayers::open(layers, bitmap_len)?.0;
        let top = Layer {
            file: top,
            present: vec![0; bitmap_len],
            blocks_offset: top_offset,
        };
        Ok(Self {
            blocks,
            base,
            layers: sealed,
            top,
        })
    }

    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.blocks * BLOCK_SIZE as u64
    }

    /// Returns the bitmap of the top layer.
    pub(crate) fn top_bitmap(&self) -> &[u8] {
        &self.top.present
    }

    /// Opens layers with the same content as the sealed ones and the top layer, as [`Disk::new`] does.
    pub(crate) fn open_sealed(
        &self,
        layers: Vec<(File, u64, u64)>,
    ) -> Result<SealedLayers, DiskError> {
        SealedLayers::open(layers, self.top.present.len())
    }

    /// Seals the top layer and directs writes to a new one. Layers in `replacing` replace all sealed ones.
    pub(crate) fn advance(
        &mut self,
        file: File,
        blocks_offset: u64,
        replacing: Option<SealedLayers>,
    ) {
        let new_top = Layer {
            file,
            present: vec![0; self.top.present.len()],
            blocks_offset,
        };
        let sealed = std::mem::replace(&mut self.top, new_top);
        match replacing {
            Some(layers) => self.layers = layers.0,
            None => self.layers.push(sealed),
        }
    }

    /// Reads whole blocks from block `first`.
    pub(crate) fn read(&self, first: u64, bytes: &mut [u8]) -> io::Result<()> {
        let range = self.range(first, bytes.len())?;
        let mut rest = bytes;
        let mut at = range.start;
        while at < range.end {
            let source = self.source(at);
            let mut end = at + 1;
            while end < range.end && is_same_source(self.source(end), source) {
                end += 1;
            }
            let len = usize::try_from(end - at).map_err(io::Error::other)? * BLOCK_SIZE;
            let (part, after) = rest.split_at_mut(len.min(rest.len()));
            match source {
                Some(layer) => layer
                    .file
                    .read_exact_at(part, layer.blocks_offset + at * BLOCK_SIZE as u64)?,
                None => read_padded(&self.base, part, at * BLOCK_SIZE as u64)?,
            }
            rest = after;
            at = end;
        }
        Ok(())
    }

    /// Writes whole blocks from block `first` to the top layer.
    pub(crate) fn write(&mut self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let range = self.range(first, bytes.len())?;
        self.top.file.write_all_at(
            bytes,
            self.top.blocks_offset + range.start * BLOCK_SIZE as u64,
        )?;
        for block in range {
            self.top.mark(block);
        }
        Ok(())
    }

    /// Returns the topmost layer that has a block; `None` for the base.
    fn source(&self, block: u64) -> Option<&Layer> {
        std::iter::once(&self.top)
            .chain(self.layers.iter().rev())
            .find(|layer| layer.has(block))
    }

    fn range(&self, first: u64, len: usize) -> io::Result<Range<u64>> {
        let count = (len / BLOCK_SIZE) as u64;
        match first.checked_add(count) {
            Some(end) if end <= self.blocks && len.is_multiple_of(BLOCK_SIZE) => Ok(first..end),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl SealedLayers {
    fn open(layers: Vec<(File, u64, u64)>, bitmap_len: usize) -> Result<Self, DiskError> {
        let mut sealed = Vec::new();
        for (layer, (file, bitmap_offset, blocks_offset)) in layers.into_iter().enumerate() {
            let mut present = vec![0; bitmap_len];
            file.read_exact_at(&mut present, bitmap_offset)
                .map_err(|source| DiskError::Bitmap { layer, source })?;
            sealed.push(Layer {
                file,
                present,
                blocks_offset,
            });
        }
        Ok(Self(sealed))
    }
}

impl Layer {
    fn has(&self, block: u64) -> bool {
        let byte = usize::try_from(block / 8)
            .ok()
            .and_then(|at| self.present.get(at));
        byte.is_some_and(|byte| byte >> (block % 8) & 1 == 1)
    }

    fn mark(&mut self, block: u64) {
        if let Some(byte) = usize::try_from(block / 8)
            .ok()
            .and_then(|at| self.present.get_mut(at))
        {
            *byte |= 1 << (block % 8);
        }
    }
}

fn is_same_source(one: Option<&Layer>, other: Option<&Layer>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => std::ptr::eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn bitmap_len(blocks: u64) -> Option<usize> {
    usize::try_from(blocks.div_ceil(8)).ok()
}

/// Reads from a file and pads with zeroes beyond its end.
fn read_padded(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, at) {
            Ok(0) => {
                bytes.fill(0);
                break;
            }
            Ok(count) => {
                bytes = &mut bytes[count..];
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn block(fill: u8) -> Vec<u8> {
        vec![fill; BLOCK_SIZE]
    }

    #[test]
    fn read_uses_the_topmost_layer_with_the_block() {
        let base = file(&[block(1), block(1)].concat());
        let mut disk = Disk::new(4 * BLOCK_SIZE as u64, base, Vec::new(), file(&[]), 8192).unwrap();
        disk.write(1, &block(2)).unwrap();
        disk.advance(file(&[]), 4096, None);
        disk.write(2, &block(3)).unwrap();
        let mut bytes = vec![9; 4 * BLOCK_SIZE];
        disk.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [block(1), block(2), block(3), block(0)].concat());
        assert_eq!(disk.top_bitmap(), [0b100]);
    }

    #[test]
    fn replaced_layers_are_read_and_the_old_ones_closed() {
        let size = 2 * BLOCK_SIZE as u64;
        let old = tempfile::tempfile().unwrap();
        let mut disk = Disk::new(size, file(&block(1)), Vec::new(), old, 0).unwrap();
        disk.write(0, &block(2)).unwrap();
        disk.advance(file(&[]), 0, None);
        // The bitmap of the folded layer, which has both blocks, precedes them.
        let folded = file(&[vec![0b11; BLOCK_SIZE], block(3), block(4)].concat());
        let sealed = disk.open_sealed(vec![(folded, 0, BLOCK_SIZE as u64)]);
        disk.advance(file(&[]), 0, Some(sealed.unwrap()));
        let mut bytes = vec![9; 2 * BLOCK_SIZE];
        disk.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [block(3), block(4)].concat());
        assert_eq!(disk.layers.len(), 1);
        let empty = disk.open_sealed(vec![(file(&[]), 0, 0)]);
        assert!(matches!(empty, Err(DiskError::Bitmap { layer: 0, .. })));
    }

    #[test]
    fn access_beyond_the_end_of_the_disk_fails() {
        let mut disk = Disk::new(BLOCK_SIZE as u64, file(&[]), Vec::new(), file(&[]), 0).unwrap();
        assert!(disk.write(1, &block(1)).is_err());
        assert!(disk.read(u64::MAX, &mut block(0)).is_err());
        assert!(disk.read(0, &mut [0; 100]).is_err());
    }
}
