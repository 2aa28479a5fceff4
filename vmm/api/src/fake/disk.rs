//! Disk over real files.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::{Disk, DiskLayer, NextLayers, PAGE_SIZE, TopLayer};

/// Bytes of a block.
pub(super) type Block = [u8; PAGE_SIZE];

/// Opened layers for a disk to continue with.
#[derive(Debug)]
pub(super) struct OpenedLayers {
    top: Layer,
    sealed: Option<Vec<Layer>>,
}

/// A disk: layers over a base, under a writable top.
#[derive(Debug)]
pub(super) struct FakeDisk {
    blocks: u64,
    base: File,
    layers: Vec<Layer>,
    top: Layer,
}

#[derive(Debug)]
struct Layer {
    file: File,
    offset: u64,
    bitmap: Vec<u8>,
}

impl FakeDisk {
    pub(super) fn open(disk: Disk) -> io::Result<Self> {
        let blocks = disk.size / PAGE_SIZE as u64;
        let bitmap_len = usize::try_from(blocks.div_ceil(8)).map_err(io::Error::other)?;
        let layers = disk.layers.into_iter();
        let layers = layers
            .map(|layer| Layer::sealed(layer, bitmap_len))
            .collect::<io::Result<_>>()?;
        let top = Layer::empty(disk.top, bitmap_len);
        Ok(Self {
            blocks,
            base: disk.base,
            layers,
            top,
        })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn read(&self, block: u64) -> io::Result<Block> {
        let mut bytes = [0; PAGE_SIZE];
        if block >= self.blocks {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut topmost_first = self.layers.iter().chain([&self.top]).rev();
        if let Some(layer) = topmost_first.find(|layer| layer.has(block)) {
            layer
                .file
                .read_exact_at(&mut bytes, layer.offset + block * PAGE_SIZE as u64)?;
            return Ok(bytes);
        }
        let mut read = 0;
        while read < bytes.len() {
            match self
                .base
                .read_at(&mut bytes[read..], block * PAGE_SIZE as u64 + read as u64)?
            {
                0 => break,
                count => read += count,
            }
        }
        Ok(bytes)
    }

    pub(super) fn write(&mut self, block: u64, bytes: &Block) -> io::Result<()> {
        if block >= self.blocks {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.top
            .file
            .write_all_at(bytes, self.top.offset + block * PAGE_SIZE as u64)?;
        let byte = usize::try_from(block / 8).map_err(io::Error::other)?;
        self.top.bitmap[byte] |= 1 << (block % 8);
        Ok(())
    }

    /// Returns the bitmap of the top layer.
    pub(super) fn written(&self) -> &[u8] {
        &self.top.bitmap
    }

    pub(super) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Opens the layers to continue with.
    pub(super) fn open_next(&self, next: NextLayers) -> io::Result<OpenedLayers> {
        let bitmap_len = self.top.bitmap.len();
        let open = |layers: Vec<DiskLayer>| {
            let layers = layers.into_iter();
            layers
                .map(|layer| Layer::sealed(layer, bitmap_len))
                .collect()
        };
        Ok(OpenedLayers {
            top: Layer::empty(next.top, bitmap_len),
            sealed: next.sealed.map(open).transpose()?,
        })
    }

    /// Seals the top layer and directs writes to another.
    pub(super) fn advance(&mut self, next: OpenedLayers) {
        let top = std::mem::replace(&mut self.top, next.top);
        match next.sealed {
            Some(layers) => self.layers = layers,
            None => self.layers.push(top),
        }
    }
}

impl Layer {
    fn sealed(layer: DiskLayer, bitmap_len: usize) -> io::Result<Self> {
        let mut bitmap = vec![0; bitmap_len];
        layer.file.read_exact_at(&mut bitmap, layer.bitmap_offset)?;
        Ok(Self {
            file: layer.file,
            offset: layer.blocks_offset,
            bitmap,
        })
    }

    fn empty(top: TopLayer, bitmap_len: usize) -> Self {
        Self {
            file: top.file,
            offset: top.blocks_offset,
            bitmap: vec![0; bitmap_len],
        }
    }

    fn has(&self, block: u64) -> bool {
        let byte = usize::try_from(block / 8)
            .ok()
            .and_then(|at| self.bitmap.get(at));
        byte.is_some_and(|byte| byte & (1 << (block % 8)) != 0)
    }
}
