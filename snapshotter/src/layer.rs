//! The file format of a layer, for memory and for disks.
//!
//! ```text
//! 0               header: magic, version, pages, counts, checksum
//! bitmap_offset   one bit a page, least significant first: the layer has the page
//! zeroes_offset   one bit a page: the page is all zeroes (a hole in the file)
//! digests_offset  XXH3-64 of each page, 8 bytes a page, little-endian; 0 where the layer has no page
//! pages_offset    page n at n * 4096
//! ```
//!
//! Every part begins on a multiple of 4096. The offsets depend on the number of pages only, so pages are written before
//! the rest is known. The checksum covers the header's other fields, both bitmaps and the digests, and through the digests
//! the pages. It identifies the layer.

mod bitmap;
mod seal;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use vmm_api::{PAGE_SIZE, page_digest};

pub use self::{
    bitmap::Bitmap,
    seal::{SealError, Tables},
};
use crate::Digest;

/// Maximum pages of a layer: 256 GiB.
pub const MAX_PAGES: u32 = 1 << 26;

const MAGIC: [u8; 8] = *b"CATNAPLY";
const VERSION: u32 = 1;
/// Bytes of the header that the checksum covers.
const FIELDS: usize = 32;
const PAGE: u64 = PAGE_SIZE as u64;
/// Digests in one page of the digest table.
const DIGESTS_A_PAGE: usize = PAGE_SIZE / 8;

/// The offsets of a layer's parts, in bytes from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The number of pages (or blocks) of the memory or disk.
    pub pages: u32,
    /// Offset of the bitmap of present pages.
    pub bitmap_offset: u64,
    /// Offset of the bitmap of zero pages.
    pub zeroes_offset: u64,
    /// Offset of the digests.
    pub digests_offset: u64,
    /// Offset of page 0.
    pub pages_offset: u64,
}

/// A sealed layer with checked tables; each page is checked as it is read.
#[derive(Debug)]
pub struct Layer {
    path: PathBuf,
    file: File,
    layout: Layout,
    tables: Tables,
    digest: Digest,
}

/// Failure to open or read a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The file cannot be read.
    #[error("failed to read layer {}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not a layer of this size, or is corrupted.
    #[error("layer {} is damaged: {what}", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// The defect.
        what: &'static str,
    },
    /// The file has an unknown version.
    #[error("layer {} has version {version}, but only {VERSION} is supported", path.display())]
    Version {
        /// Its path.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A page does not match its digest.
    #[error("page {page} of layer {} is damaged", path.display())]
    Page {
        /// The layer's path.
        path: PathBuf,
        /// The page.
        page: u32,
    },
}

impl LayerError {
    /// Returns whether the file is missing or has other bytes than were written, rather than being unreadable now.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Damaged { .. } | Self::Version { .. } | Self::Page { .. } => true,
        }
    }
}

/// The header's fields, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    pages: u32,
    present: u32,
    zeroes: u32,
    checksum: Digest,
}

// === impl Layout ===

impl Layout {
    /// Computes the layout of a layer of `pages` pages.
    pub fn new(pages: u32) -> Self {
        let bitmap = u64::from(pages).div_ceil(8).next_multiple_of(PAGE);
        let digests = (u64::from(pages) * 8).next_multiple_of(PAGE);
        let bitmap_offset = PAGE;
        let zeroes_offset = bitmap_offset + bitmap;
        let digests_offset = zeroes_offset + bitmap;
        Self {
            pages,
            bitmap_offset,
            zeroes_offset,
            digests_offset,
            pages_offset: digests_offset + digests,
        }
    }

    /// Returns the offset of `page`.
    pub fn page_offset(&self, page: u32) -> u64 {
        self.pages_offset + u64::from(page) * PAGE
    }

    /// Returns the length of the file.
    pub fn len(&self) -> u64 {
        self.page_offset(self.pages)
    }

    /// Returns whether the layer has no room for a page.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }
}

// === impl Header ===

impl Header {
    fn encode(&self) -> [u8; PAGE_SIZE] {
        let mut bytes = [0; PAGE_SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.pages.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.present.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.zeroes.to_le_bytes());
        bytes[FIELDS..FIELDS + 32].copy_from_slice(self.checksum.as_bytes());
        bytes
    }

    /// Decodes any bytes to a header or a reason.
    fn decode(bytes: &[u8; PAGE_SIZE]) -> Result<Self, HeaderError> {
        let field = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged("not a layer"));
        }
        if field(8) != VERSION {
            return Err(HeaderError::Version(field(8)));
        }
        let rest = bytes[24..FIELDS].iter().chain(&bytes[FIELDS + 32..]);
        if rest.copied().any(|byte| byte != 0) {
            return Err(HeaderError::Damaged("unknown fields in the header"));
        }
        let mut checksum = [0; 32];
        checksum.copy_from_slice(&bytes[FIELDS..FIELDS + 32]);
        Ok(Self {
            pages: field(12),
            present: field(16),
            zeroes: field(20),
            checksum: checksum.into(),
        })
    }

    fn checksum(&self, tables: &Tables) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.encode()[..FIELDS]);
        hasher.update(tables.present.as_bytes());
        hasher.update(tables.zeroes.as_bytes());
        for (number, chunk) in tables.digests.chunks(DIGESTS_A_PAGE).enumerate() {
            if tables.present.has_any_of(number) {
                let mut bytes = [0; PAGE_SIZE];
                for (slot, digest) in bytes.chunks_exact_mut(8).zip(chunk) {
                    slot.copy_from_slice(&digest.to_le_bytes());
                }
                hasher.update(&bytes);
            }
        }
        hasher.into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderError {
    Damaged(&'static str),
    Version(u32),
}

// === impl Layer ===

impl Layer {
    /// Opens a layer of `pages` pages, with the digest `expected` if that is known.
    pub fn open(path: &Path, pages: u32, expected: Option<Digest>) -> Result<Self, LayerError> {
        let io = |source| LayerError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |what| LayerError::Damaged {
            path: path.to_owned(),
            what,
        };
        let file = File::open(path).map_err(io)?;
        let mut header = [0; PAGE_SIZE];
        let len = file.metadata().map_err(io)?.len();
        if len < PAGE {
            return Err(damaged("cut short"));
        }
        file.read_exact_at(&mut header, 0).map_err(io)?;
        let header = Header::decode(&header).map_err(|error| match error {
            HeaderError::Damaged(what) => damaged(what),
            HeaderError::Version(version) => LayerError::Version {
                path: path.to_owned(),
                version,
            },
        })?;
        // Before any allocation: the caller knows the size, and the file has the length that follows from it.
        if header.pages != pages || pages > MAX_PAGES {
            return Err(damaged("another number of pages"));
        }
        let layout = Layout::new(pages);
        if len != layout.len() {
            return Err(damaged("cut short or too long"));
        }
        let tables = Tables::read(&file, &layout).map_err(io)?;
        if header.checksum(&tables) != header.checksum {
            return Err(damaged("wrong checksum"));
        }
        if expected.is_some_and(|expected| expected != header.checksum) {
            return Err(damaged("another layer than its snapshot names"));
        }
        if tables.present.count() != header.present || tables.zeroes.count() != header.zeroes {
            return Err(damaged("wrong counts"));
        }
        if !tables.zeroes.is_within(&tables.present) || !tables.present.is_clean() {
            return Err(damaged("bits for pages it cannot have"));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            layout,
            tables,
            digest: header.checksum,
        })
    }

    /// Returns whether the layer has the page.
    pub fn has(&self, page: u32) -> bool {
        self.tables.present.get(page)
    }

    /// Returns whether the layer has the page as a zero page.
    pub fn is_zero(&self, page: u32) -> bool {
        self.tables.zeroes.get(page)
    }

    /// Returns the digest of a page; meaningless for a missing or zero page.
    pub fn page_digest(&self, page: u32) -> u64 {
        usize::try_from(page)
            .ok()
            .and_then(|at| self.tables.digests.get(at))
            .copied()
            .unwrap_or_default()
    }

    /// Iterates over the pages of the layer, ascending.
    pub fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.tables.present.ones()
    }

    /// Reads a page of the layer and checks its digest.
    pub fn read(&self, page: u32, into: &mut [u8; PAGE_SIZE]) -> Result<(), LayerError> {
        if self.is_zero(page) {
            into.fill(0);
            return Ok(());
        }
        self.read_raw(page, into)?;
        if page_digest(into) != self.page_digest(page) {
            return Err(LayerError::Page {
                path: self.path.clone(),
                page,
            });
        }
        Ok(())
    }

    /// Checks every page of the file, for readers that read the file directly.
    pub fn verify(&self) -> Result<(), LayerError> {
        let mut bytes = [0; PAGE_SIZE];
        for page in self.pages() {
            self.read_raw(page, &mut bytes)?;
            let good = if self.is_zero(page) {
                bytes.iter().all(|byte| *byte == 0)
            } else {
                page_digest(&bytes) == self.page_digest(page)
            };
            if !good {
                return Err(LayerError::Page {
                    path: self.path.clone(),
                    page,
                });
            }
        }
        Ok(())
    }

    fn read_raw(&self, page: u32, into: &mut [u8; PAGE_SIZE]) -> Result<(), LayerError> {
        self.file
            .read_exact_at(into, self.layout.page_offset(page))
            .map_err(|source| LayerError::Io {
                path: self.path.clone(),
                source,
            })
    }

    /// Returns the digest that identifies the layer.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
