//! The recorded working set of a snapshot: a file in its directory.
//!
//! Magic, count, page numbers (4 bytes each, little-endian), and the XXH3-64 of all that. The file is a hint: a damaged one
//! is ignored, and the next restore records again.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use tracing::warn;
use vmm_api::page_digest;

/// Maximum recorded pages: 64 MiB. Later demands are not part of a wake.
pub(super) const MAX_RECORDED: usize = 1 << 14;

const MAGIC: [u8; 8] = *b"CATNAPW1";
const HEAD: usize = MAGIC.len() + 4;

/// Encodes a working set, truncated to the maximum.
pub(crate) fn encode(pages: &[u32]) -> Vec<u8> {
    let pages = &pages[..pages.len().min(MAX_RECORDED)];
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&u32::try_from(pages.len()).unwrap_or(0).to_le_bytes());
    for page in pages {
        bytes.extend_from_slice(&page.to_le_bytes());
    }
    let digest = page_digest(&bytes);
    bytes.extend_from_slice(&digest.to_le_bytes());
    bytes
}

/// Decodes any bytes; `None` unless they are a working set of a memory with `pages` pages.
fn decode(bytes: &[u8], pages: u32) -> Option<Vec<u32>> {
    let (body, digest) = bytes.split_last_chunk::<8>()?;
    if body.len() < HEAD
        || !body.starts_with(&MAGIC)
        || page_digest(body) != u64::from_le_bytes(*digest)
    {
        return None;
    }
    let (words, rest) = body[MAGIC.len()..].as_chunks::<4>();
    let (count, words) = words.split_first()?;
    if !rest.is_empty() || usize::try_from(u32::from_le_bytes(*count)).ok()? != words.len() {
        return None;
    }
    let numbers: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    numbers.iter().all(|page| *page < pages).then_some(numbers)
}

/// Reads a working set; empty when there is no usable one.
pub(crate) fn load(path: &Path, pages: u32) -> Vec<u32> {
    let most = (HEAD + MAX_RECORDED * 4 + 8) as u64;
    let read = || {
        if fs::metadata(path)?.len() > most {
            return Ok(None);
        }
        Ok(decode(&fs::read(path)?, pages))
    };
    match read() {
        Ok(Some(recorded)) => recorded,
        Ok(None) => {
            warn!(path = %path.display(), "working set is damaged; ignoring it");
            Vec::new()
        }
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let error = error_chain::chain(&error);
            warn!(path = %path.display(), %error, "failed to read working set");
            Vec::new()
        }
    }
}

/// Writes a working set atomically.
pub(super) fn save(path: &Path, pages: &[u32]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&encode(pages))?;
    let file: File = file.persist(path).map_err(|error| error.error)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_survives_its_bytes(pages in proptest::collection::vec(0u32..1000, 0..200)) {
            prop_assert_eq!(decode(&encode(&pages), 1000), Some(pages));
        }

        #[test]
        fn any_bytes_are_a_working_set_or_are_refused(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes, 1000), None);
        }

        #[test]
        fn a_changed_one_is_refused(pages in proptest::collection::vec(0u32..1000, 0..50), at: usize, byte: u8) {
            let mut bytes = encode(&pages);
            let at = at % bytes.len();
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            prop_assert_eq!(decode(&bytes, 1000), None);
        }
    }
}
