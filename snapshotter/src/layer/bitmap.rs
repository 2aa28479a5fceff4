//! A bitmap with one bit a page.

/// A bitmap, least significant bit first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    bits: u32,
    bytes: Vec<u8>,
}

impl Bitmap {
    /// Creates a bitmap of `bits` clear bits.
    pub fn new(bits: u32) -> Self {
        Self {
            bits,
            bytes: vec![0; Self::len_for(bits)],
        }
    }

    /// Returns the length in bytes of a bitmap of `bits` bits.
    pub fn len_for(bits: u32) -> usize {
        usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
    }

    /// Wraps bytes; `None` for another length.
    pub fn from_bytes(bits: u32, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == Self::len_for(bits)).then_some(Self { bits, bytes })
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns a bit; clear beyond the end.
    pub fn get(&self, bit: u32) -> bool {
        let byte = usize::try_from(bit / 8)
            .ok()
            .and_then(|at| self.bytes.get(at));
        bit < self.bits && byte.is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Returns whether any page has its digest in page `number` of the digest table.
    pub(super) fn has_any_of(&self, number: usize) -> bool {
        const BYTES: usize = super::DIGESTS_A_PAGE / 8;
        let stretch = self.bytes.chunks(BYTES).nth(number);
        stretch.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
    }

    /// Sets a bit; does nothing beyond the end.
    pub fn set(&mut self, bit: u32) {
        if bit >= self.bits {
            return;
        }
        if let Some(byte) = usize::try_from(bit / 8)
            .ok()
            .and_then(|at| self.bytes.get_mut(at))
        {
            *byte |= 1 << (bit % 8);
        }
    }

    /// Clears a bit; does nothing beyond the end.
    pub fn clear(&mut self, bit: u32) {
        if let Some(byte) = usize::try_from(bit / 8)
            .ok()
            .and_then(|at| self.bytes.get_mut(at))
        {
            *byte &= !(1 << (bit % 8));
        }
    }

    /// Counts the set bits.
    pub fn count(&self) -> u32 {
        self.bytes.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Returns whether every bit set here is set in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.bytes.len() == other.bytes.len()
            && self
                .bytes
                .iter()
                .zip(&other.bytes)
                .all(|(a, b)| a & !b == 0)
    }

    /// Returns whether no bit is set beyond the end.
    pub fn is_clean(&self) -> bool {
        match (self.bits % 8, self.bytes.last()) {
            (0, _) | (_, None) => true,
            (used, Some(last)) => last >> used == 0,
        }
    }

    /// Iterates over the set bits, ascending.
    pub fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        let bytes = self.bytes.iter().zip((0u32..).step_by(8));
        bytes
            .filter(|(byte, _)| **byte != 0)
            .flat_map(|(byte, first)| {
                (0..8)
                    .filter(move |bit| byte & (1 << bit) != 0)
                    .map(move |bit| first + bit)
            })
    }
}
