//! What is said of a captured page.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes in a page of guest memory and in a block of a disk layer.
pub const PAGE_SIZE: usize = 4096;

/// The digest that guards a page against flipped bits (XXH3, 64 bits). It is no defence against an author.
pub fn page_digest(page: &[u8]) -> u64 {
    xxh3_64(page)
}

/// One captured page: 16 bytes in the index a monitor writes, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRecord {
    /// Number of the page in guest memory, counted from its beginning.
    pub number: u32,
    /// It holds zeroes only, and no bytes were written for it.
    pub zero: bool,
    /// [`page_digest`] of its bytes.
    pub digest: u64,
}

impl PageRecord {
    /// Bytes of a record.
    pub const SIZE: usize = 16;

    /// The record's bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::from(self.zero).to_le_bytes());
        bytes[8..].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    /// Reads a record; `None` when it is not one.
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
mod test {
    use super::*;

    #[test]
    fn a_record_survives_its_bytes() {
        let record = PageRecord {
            number: 7,
            zero: true,
            digest: 0x0123_4567_89ab_cdef,
        };
        assert_eq!(PageRecord::decode(&record.encode()), Some(record));
    }

    #[test]
    fn an_unknown_flag_is_refused() {
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
