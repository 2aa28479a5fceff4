//! One bit a page.

/// A bitmap, least significant bit first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    bits: u32,
    bytes: Vec<u8>,
}

impl Bitmap {
    /// `bits` bits, all clear.
    pub fn new(bits: u32) -> Self {
        Self {
            bits,
            bytes: vec![0; Self::len_for(bits)],
        }
    }

    /// Bytes for so many bits.
    pub fn len_for(bits: u32) -> usize {
        usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
    }

    /// A bitmap of these bytes; `None` when they are too many or too few.
    pub fn from_bytes(bits: u32, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == Self::len_for(bits)).then_some(Self { bits, bytes })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A bit; clear beyond the end.
    pub fn get(&self, bit: u32) -> bool {
        let byte = usize::try_from(bit / 8)
            .ok()
            .and_then(|at| self.bytes.get(at));
        bit < self.bits && byte.is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Whether any bit of a stretch is set; stretch `number` is the one whose digests fill page `number` of their table.
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

    /// How many are set.
    pub fn count(&self) -> u32 {
        self.bytes.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether each bit set here is set there.
    pub fn is_within(&self, other: &Self) -> bool {
        self.bytes.len() == other.bytes.len()
            && self
                .bytes
                .iter()
                .zip(&other.bytes)
                .all(|(a, b)| a & !b == 0)
    }

    /// Whether nothing is set beyond the end.
    pub fn is_clean(&self) -> bool {
        match (self.bits % 8, self.bytes.last()) {
            (0, _) | (_, None) => true,
            (used, Some(last)) => last >> used == 0,
        }
    }

    /// The bits that are set, ascending.
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
