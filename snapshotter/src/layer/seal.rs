//! Sealing a layer whose pages are written.

use std::{fs::File, io, os::unix::fs::FileExt};

use vmm_api::{PAGE_SIZE, page_digest};

use super::{Bitmap, DIGESTS_A_PAGE, Header, Layout};
use crate::Digest;

/// The tables of a layer: present pages, zero pages, digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    pub(super) present: Bitmap,
    pub(super) zeroes: Bitmap,
    pub(super) digests: Vec<u64>,
}

/// Failure to seal a layer.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file cannot be read or written.
    #[error("failed to write layer")]
    Io(#[from] io::Error),
    /// The tables do not fit the layer.
    #[error("failed to seal layer: {0}")]
    Invalid(&'static str),
}

impl Tables {
    /// Creates the tables of an empty layer.
    pub fn new(pages: u32) -> Self {
        let digests = vec![0; usize::try_from(pages).unwrap_or(usize::MAX)];
        Self {
            present: Bitmap::new(pages),
            zeroes: Bitmap::new(pages),
            digests,
        }
    }

    /// Computes the tables of a top layer from the blocks in `present`.
    pub fn of_blocks(file: &File, layout: &Layout, present: &Bitmap) -> Result<Self, SealError> {
        if present.as_bytes().len() != Bitmap::len_for(layout.pages) || !present.is_clean() {
            return Err(SealError::Invalid("the bitmap has another size"));
        }
        let mut tables = Self::new(layout.pages);
        let mut block = [0; PAGE_SIZE];
        for page in present.ones() {
            file.read_exact_at(&mut block, layout.page_offset(page))?;
            if block.iter().all(|byte| *byte == 0) {
                tables.add_zero(page);
            } else {
                tables.add(page, page_digest(&block));
            }
        }
        Ok(tables)
    }

    pub(super) fn read(file: &File, layout: &Layout) -> io::Result<Self> {
        let bitmap = |offset| {
            let mut bytes = vec![0; Bitmap::len_for(layout.pages)];
            file.read_exact_at(&mut bytes, offset)?;
            Bitmap::from_bytes(layout.pages, bytes)
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        };
        let present = bitmap(layout.bitmap_offset)?;
        let zeroes = bitmap(layout.zeroes_offset)?;
        let mut digests = vec![0; usize::try_from(layout.pages).unwrap_or(usize::MAX)];
        let mut offset = layout.digests_offset;
        for (number, chunk) in digests.chunks_mut(DIGESTS_A_PAGE).enumerate() {
            // Table pages without digests are not read, so a small layer of a large memory opens fast.
            if present.has_any_of(number) {
                let mut bytes = [0; PAGE_SIZE];
                file.read_exact_at(&mut bytes, offset)?;
                for (digest, word) in chunk.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *digest = u64::from_le_bytes(*word);
                }
            }
            offset += PAGE_SIZE as u64;
        }
        Ok(Self {
            present,
            zeroes,
            digests,
        })
    }

    /// Adds a page.
    pub fn add(&mut self, page: u32, digest: u64) {
        self.present.set(page);
        if let Some(slot) = usize::try_from(page)
            .ok()
            .and_then(|at| self.digests.get_mut(at))
        {
            *slot = digest;
        }
    }

    /// Adds a zero page.
    pub fn add_zero(&mut self, page: u32) {
        self.present.set(page);
        self.zeroes.set(page);
    }

    /// Removes a page.
    pub fn remove(&mut self, page: u32) {
        self.present.clear(page);
        self.zeroes.clear(page);
        if let Some(slot) = usize::try_from(page)
            .ok()
            .and_then(|at| self.digests.get_mut(at))
        {
            *slot = 0;
        }
    }

    /// Returns the digest of a page; `None` for a zero page.
    pub fn digest(&self, page: u32) -> Option<u64> {
        let digest = usize::try_from(page)
            .ok()
            .and_then(|at| self.digests.get(at).copied());
        digest.filter(|_| !self.zeroes.get(page))
    }

    /// Returns whether the layer has this page.
    pub fn has(&self, page: u32) -> bool {
        self.present.get(page)
    }

    /// Counts the pages.
    pub fn count(&self) -> u32 {
        self.present.count()
    }

    /// Iterates over the pages, ascending.
    pub fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.present.ones()
    }

    /// Seals a file whose pages are written, and syncs it.
    pub fn seal(&self, file: &File, layout: &Layout) -> Result<Digest, SealError> {
        let mut header = Header {
            pages: layout.pages,
            present: self.present.count(),
            zeroes: self.zeroes.count(),
            checksum: Digest::of(&[]),
        };
        header.checksum = header.checksum(self);
        file.set_len(layout.len())?;
        file.write_all_at(self.present.as_bytes(), layout.bitmap_offset)?;
        file.write_all_at(self.zeroes.as_bytes(), layout.zeroes_offset)?;
        self.write_digests(file, layout)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        Ok(header.checksum)
    }

    /// Writes the digest table; a page of zeroes stays a hole.
    fn write_digests(&self, file: &File, layout: &Layout) -> io::Result<()> {
        let mut offset = layout.digests_offset;
        for chunk in self.digests.chunks(PAGE_SIZE / 8) {
            let bytes: Vec<u8> = chunk
                .iter()
                .flat_map(|digest| digest.to_le_bytes())
                .collect();
            let mut old = vec![0; bytes.len()];
            file.read_exact_at(&mut old, offset)?;
            if old != bytes {
                file.write_all_at(&bytes, offset)?;
            }
            offset += PAGE_SIZE as u64;
        }
        Ok(())
    }
}
