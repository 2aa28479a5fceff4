//! Index records of captured pages.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a page of guest memory and of a block of a disk layer.
pub const PAGE_SIZE: usize = 4096;

/// Digests a page to detect corruption (XXH3, 64 bits). It does not detect deliberate changes.
pub fn page_digest(page: &[u8]) -> u64 {
    xxh3_64(page)
}

/// Index entry of one captured page: 16 bytes, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRecord {
    /// Page number, counted from the start of guest memory.
    pub number: u32,
    /// The page is all zeroes, and its bytes are not in the pages file.
    pub zero: bool,
    /// [`page_digest`] of the page.
    pub digest: u64,
}

impl PageRecord {
    /// Encoded length in bytes.
    pub const SIZE: usize = 16;

    /// Encodes the record.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::from(self.zero).to_le_bytes());
        bytes[8..].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    /// Decodes a record; `None` if the zero flag is neither 0 nor 1.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<4>()?;
        let (zero, rest) = rest.split_first_chunk::<4>()?;
        let (digest, _) = rest.split_first_chunk::<8>()?;
        let zero = match u32::from_le_bytes(*zero) {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self {
            number: u32::from_le_bytes(*number),
            zero,
            digest: u64::from_le_bytes(*digest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_record_round_trips() {
        let record = PageRecord {
            number: 7,
            zero: true,
            digest: 0x0123_4567_89ab_cdef,
        };
        assert_eq!(PageRecord::decode(&record.encode()), Some(record));
    }

    #[test]
    fn page_record_with_unknown_flag_is_rejected() {
        let mut bytes = PageRecord {
            number: 7,
            zero: true,
            digest: 1,
        }
        .encode();
        bytes[4] = 2;
        assert_eq!(PageRecord::decode(&bytes), None);
    }
}
