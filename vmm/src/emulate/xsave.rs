//! XSAVE instructions (Intel SDM volume 1, chapter 13).
//!
//! KVM stores the extended state of a vCPU in the standard format, which XSAVE writes. XSAVEC and XSAVES write the
//! compacted format; XRSTOR reads both.

use kvm_bindings::kvm_xsave;

use super::{EmulateError, Execution, Outcome, access::Fault};
use crate::{
    arch::cpuid::{STATE_COMPONENTS, aligned_when_compacted, component},
    sys::kvm::set_xsave,
};

/// Offsets of the header and of the extended region.
const HEADER: usize = 512;
const EXTENDED: usize = 576;
const COMPACTED: u64 = 1 << 63;
const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// Bits of MXCSR that are not reserved.
const MXCSR_MASK: u32 = 0xffff;
const MXCSR_INITIAL: u32 = 0x1f80;
const FCW_INITIAL: u16 = 0x37f;

/// An XSAVE area in either format.
type Area = Vec<u8>;

/// Layout of the extended region of an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each component is at the offset that CPUID reports.
    Standard,
    /// Each component follows the previous one.
    Compacted,
}

impl Execution<'_> {
    pub(super) fn xgetbv(&mut self) -> Result<Outcome, EmulateError> {
        let value = match self.regs.rcx & 0xffff_ffff {
            0 => self.xcr0()?,
            // XINUSE: reporting every enabled component is correct, if slower.
            1 => self.xcr0()?,
            _ => return Ok(Outcome::Fault(Fault::Protection)),
        };
        (self.regs.rax, self.regs.rdx) = (value & 0xffff_ffff, value >> 32);
        Ok(Outcome::Done)
    }

    pub(super) fn save(&mut self, layout: Layout) -> Result<Outcome, EmulateError> {
        let Some(at) = self.address().filter(|at| at % 64 == 0) else {
            return Ok(Outcome::Fault(Fault::Protection));
        };
        let requested = self.requested()?;
        let state = to_bytes(&self.vcpu.get_xsave()?);
        let mut area = vec![0; area_len(requested, layout)];
        // Components that are not saved keep their bytes in memory.
        if let Err(fault) = self.access().read(at, &mut area) {
            return Ok(Outcome::Fault(fault));
        }
        save(&state, requested, layout, &mut area);
        Ok(match self.access().write(at, &area) {
            Ok(()) => Outcome::Done,
            Err(fault) => Outcome::Fault(fault),
        })
    }

    pub(super) fn restore(&mut self) -> Result<Outcome, EmulateError> {
        let Some(at) = self.address().filter(|at| at % 64 == 0) else {
            return Ok(Outcome::Fault(Fault::Protection));
        };
        let requested = self.requested()?;
        let enabled = self.xcr0()?;
        let mut area = vec![0; EXTENDED];
        if let Err(fault) = self.access().read(at, &mut area) {
            return Ok(Outcome::Fault(fault));
        }
        let Some(format) = Format::parse(&area, enabled) else {
            return Ok(Outcome::Fault(Fault::Protection));
        };
        area.resize(format.len(requested), 0);
        if let Err(fault) = self.access().read(at, &mut area) {
            return Ok(Outcome::Fault(fault));
        }
        let mut state = to_bytes(&self.vcpu.get_xsave()?);
        if !restore(&mut state, requested, format, &area) {
            return Ok(Outcome::Fault(Fault::Protection));
        }
        set_xsave(self.vcpu, &from_bytes(&state))?;
        Ok(Outcome::Done)
    }

    /// Returns the requested-feature bitmap (RFBM).
    fn requested(&self) -> Result<u64, EmulateError> {
        let mask = (self.regs.rdx & 0xffff_ffff) << 32 | self.regs.rax & 0xffff_ffff;
        Ok(mask & self.xcr0()? & STATE_COMPONENTS)
    }

    fn xcr0(&self) -> Result<u64, EmulateError> {
        let xcrs = self.vcpu.get_xcrs()?;
        let count = usize::try_from(xcrs.nr_xcrs).unwrap_or(0);
        Ok(xcrs
            .xcrs
            .iter()
            .take(count)
            .find(|xcr| xcr.xcr == 0)
            .map_or(X87, |xcr| xcr.value))
    }
}

/// Format of an area in memory, from its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Format {
    /// Components that the area holds (XSTATE_BV).
    present: u64,
    /// Components that the compacted layout includes (XCOMP_BV); `None` for the standard format.
    compacted: Option<u64>,
}

impl Format {
    /// Parses the header; `None` if the processor would raise #GP.
    fn parse(area: &[u8], enabled: u64) -> Option<Self> {
        let present = read_u64(area, HEADER)?;
        let layout = read_u64(area, HEADER + 8)?;
        let reserved = area.get(HEADER + 16..EXTENDED)?;
        if present & !enabled != 0
            || reserved
                .iter()
                .take(if layout & COMPACTED == 0 { 8 } else { 48 })
                .any(|&b| b != 0)
        {
            return None;
        }
        if layout & COMPACTED == 0 {
            return (layout == 0).then_some(Self {
                present,
                compacted: None,
            });
        }
        let layout_components = layout & !COMPACTED;
        (layout_components & !enabled == 0 && present & !layout_components == 0).then_some(Self {
            present,
            compacted: Some(layout_components),
        })
    }

    fn len(self, requested: u64) -> usize {
        match self.compacted {
            None => area_len(requested, Layout::Standard),
            Some(layout_components) => area_len(layout_components, Layout::Compacted),
        }
    }
}

/// Returns the length of an area with these components.
fn area_len(components: u64, layout: Layout) -> usize {
    extended_components(components)
        .map(|number| offset(number, components, layout) + component(number).1)
        .max()
        .unwrap_or(EXTENDED)
}

/// Iterates over the components beyond x87 and SSE, in ascending order.
fn extended_components(components: u64) -> impl Iterator<Item = u32> {
    (2..63).filter(move |number| components >> number & 1 == 1)
}

/// Returns the offset of a component in an area with `components`.
fn offset(number: u32, components: u64, layout: Layout) -> usize {
    if layout == Layout::Standard {
        return component(number).0;
    }
    let mut at = EXTENDED;
    for earlier in extended_components(components) {
        if aligned_when_compacted(earlier) {
            at = at.next_multiple_of(64);
        }
        if earlier == number {
            break;
        }
        at += component(earlier).1;
    }
    at
}

/// Saves the requested components of a state in standard format to an area.
fn save(state: &[u8], requested: u64, layout: Layout, area: &mut [u8]) {
    let in_use = read_u64(state, HEADER).unwrap_or(0);
    if requested & X87 != 0 {
        copy(state, 0, area, 0, 24);
        copy(state, 32, area, 32, 128);
    }
    if requested & (SSE | AVX) != 0 {
        copy(state, 24, area, 24, 8);
    }
    if requested & SSE != 0 {
        copy(state, 160, area, 160, 256);
    }
    for number in extended_components(requested) {
        let (from, len) = component(number);
        copy(state, from, area, offset(number, requested, layout), len);
    }
    let header = match layout {
        Layout::Compacted => {
            area[HEADER + 8..EXTENDED].fill(0);
            area[HEADER + 8..HEADER + 16].copy_from_slice(&(COMPACTED | requested).to_le_bytes());
            in_use & requested
        }
        Layout::Standard => {
            let before = read_u64(area, HEADER).unwrap_or(0);
            before & !requested | in_use & requested
        }
    };
    area[HEADER..HEADER + 8].copy_from_slice(&header.to_le_bytes());
}

/// Restores the requested components of an area to a state in standard format, and initialises those that the area does
/// not hold. `false` if the processor would raise #GP.
fn restore(state: &mut [u8], requested: u64, format: Format, area: &[u8]) -> bool {
    let load = requested & format.present;
    let loads_mxcsr = match format.compacted {
        None => requested & (SSE | AVX) != 0,
        Some(_) => load & (SSE | AVX) != 0,
    };
    if loads_mxcsr {
        let mxcsr = area
            .get(24..28)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(u32::MAX, u32::from_le_bytes);
        if mxcsr & !MXCSR_MASK != 0 {
            return false;
        }
        state[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    } else if requested & SSE != 0 && format.compacted.is_some() {
        state[24..28].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
    }
    if requested & X87 != 0 {
        if load & X87 != 0 {
            copy(area, 0, state, 0, 24);
            copy(area, 32, state, 32, 128);
        } else {
            state[..24].fill(0);
            state[..2].copy_from_slice(&FCW_INITIAL.to_le_bytes());
            state[32..160].fill(0);
        }
    }
    if requested & SSE != 0 {
        if load & SSE != 0 {
            copy(area, 160, state, 160, 256);
        } else {
            state[160..416].fill(0);
        }
    }
    for number in extended_components(requested) {
        let (to, len) = component(number);
        if load >> number & 1 == 1 {
            let from = format.compacted.map_or(to, |layout_components| {
                offset(number, layout_components, Layout::Compacted)
            });
            copy(area, from, state, to, len);
        } else if let Some(absent) = state.get_mut(to..to + len) {
            absent.fill(0);
        }
    }
    let before = read_u64(state, HEADER).unwrap_or(0);
    state[HEADER..HEADER + 8].copy_from_slice(&(before & !requested | load).to_le_bytes());
    true
}

fn copy(source: &[u8], source_at: usize, target: &mut [u8], target_at: usize, len: usize) {
    if let (Some(source), Some(target)) = (
        source.get(source_at..source_at + len),
        target.get_mut(target_at..target_at + len),
    ) {
        target.copy_from_slice(source);
    }
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at + 8)?
        .try_into()
        .ok()
        .map(u64::from_le_bytes)
}

fn to_bytes(state: &kvm_xsave) -> Area {
    state
        .region
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn from_bytes(bytes: &[u8]) -> kvm_xsave {
    let mut state = kvm_xsave::default();
    for (word, bytes) in state.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_le_bytes);
    }
    state
}

#[cfg(test)]
mod tests;
