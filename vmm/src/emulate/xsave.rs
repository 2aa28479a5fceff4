//! The XSAVE family (Intel SDM volume 1, chapter 13).
//!
//! KVM keeps a vCPU's extended state in the standard form, which is what XSAVE writes. XSAVEC and XSAVES write the
//! compacted form; XRSTOR takes either.

use kvm_bindings::kvm_xsave;

use super::{EmulateError, Execution, Outcome, access::Fault};
use crate::{
    arch::cpuid::{STATE_COMPONENTS, aligned_when_compacted, component},
    sys::kvm::set_xsave,
};

/// Bytes of the legacy region and the header.
const HEADER: usize = 512;
const EXTENDED: usize = 576;
const COMPACTED: u64 = 1 << 63;
const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// Bits of MXCSR that a processor with all of SSE has.
const MXCSR_MASK: u32 = 0xffff;
const MXCSR_INITIAL: u32 = 0x1f80;
const FCW_INITIAL: u16 = 0x37f;

/// A state in the standard form, or in the guest's form.
type Area = Vec<u8>;

impl Execution<'_> {
    pub(super) fn xgetbv(&mut self) -> Result<Outcome, EmulateError> {
        let value = match self.regs.rcx & 0xffff_ffff {
            0 => self.xcr0()?,
            // What is in use: all that is enabled, which costs a little time and no correctness.
            1 => self.xcr0()?,
            _ => return Ok(Outcome::Fault(Fault::Protection)),
        };
        (self.regs.rax, self.regs.rdx) = (value & 0xffff_ffff, value >> 32);
        Ok(Outcome::Done)
    }

    pub(super) fn save(&mut self, compacted: bool) -> Result<Outcome, EmulateError> {
        let Some(at) = self.address().filter(|at| at % 64 == 0) else {
            return Ok(Outcome::Fault(Fault::Protection));
        };
        let wanted = self.requested()?;
        let state = bytes_of(&self.vcpu.get_xsave()?);
        let mut area = vec![0; area_len(wanted, compacted)];
        // What is not saved keeps the bytes it has in memory.
        if let Err(fault) = self.access().read(at, &mut area) {
            return Ok(Outcome::Fault(fault));
        }
        save(&state, wanted, compacted, &mut area);
        Ok(match self.access().write(at, &area) {
            Ok(()) => Outcome::Done,
            Err(fault) => Outcome::Fault(fault),
        })
    }

    pub(super) fn restore(&mut self) -> Result<Outcome, EmulateError> {
        let Some(at) = self.address().filter(|at| at % 64 == 0) else {
            return Ok(Outcome::Fault(Fault::Protection));
        };
        let wanted = self.requested()?;
        let enabled = self.xcr0()?;
        let mut area = vec![0; EXTENDED];
        if let Err(fault) = self.access().read(at, &mut area) {
            return Ok(Outcome::Fault(fault));
        }
        let Some(form) = Form::of(&area, enabled) else {
            return Ok(Outcome::Fault(Fault::Protection));
        };
        area.resize(form.len(wanted), 0);
        if let Err(fault) = self.access().read(at, &mut area) {
            return Ok(Outcome::Fault(fault));
        }
        let mut state = bytes_of(&self.vcpu.get_xsave()?);
        if !restore(&mut state, wanted, form, &area) {
            return Ok(Outcome::Fault(Fault::Protection));
        }
        set_xsave(self.vcpu, &state_of(&state))?;
        Ok(Outcome::Done)
    }

    /// The components the instruction asks for.
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

/// The form of an area in memory, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    /// Components that are in the area.
    held: u64,
    /// Components that have room in it; `None` for the standard form.
    compacted: Option<u64>,
}

impl Form {
    /// `None`: the processor would refuse it.
    fn of(area: &[u8], enabled: u64) -> Option<Self> {
        let held = word(area, HEADER)?;
        let layout = word(area, HEADER + 8)?;
        let reserved = area.get(HEADER + 16..EXTENDED)?;
        if held & !enabled != 0
            || reserved
                .iter()
                .take(if layout & COMPACTED == 0 { 8 } else { 48 })
                .any(|&b| b != 0)
        {
            return None;
        }
        if layout & COMPACTED == 0 {
            return (layout == 0).then_some(Self {
                held,
                compacted: None,
            });
        }
        let room = layout & !COMPACTED;
        (room & !enabled == 0 && held & !room == 0).then_some(Self {
            held,
            compacted: Some(room),
        })
    }

    fn len(self, wanted: u64) -> usize {
        match self.compacted {
            None => area_len(wanted, false),
            Some(room) => area_len(room, true),
        }
    }
}

/// Bytes of an area with room for the components.
fn area_len(components: u64, compacted: bool) -> usize {
    numbers(components)
        .map(|number| offset(number, components, compacted) + component(number).1)
        .max()
        .unwrap_or(EXTENDED)
}

/// Components beyond x87 and SSE, ascending.
fn numbers(components: u64) -> impl Iterator<Item = u32> {
    (2..63).filter(move |number| components >> number & 1 == 1)
}

/// Where a component lies in an area with room for `components`.
fn offset(number: u32, components: u64, compacted: bool) -> usize {
    if !compacted {
        return component(number).0;
    }
    let mut at = EXTENDED;
    for earlier in numbers(components) {
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

/// Writes the wanted components of a state in standard form into an area.
fn save(state: &[u8], wanted: u64, compacted: bool, area: &mut [u8]) {
    let in_use = word(state, HEADER).unwrap_or(0);
    if wanted & X87 != 0 {
        copy(state, 0, area, 0, 24);
        copy(state, 32, area, 32, 128);
    }
    if wanted & (SSE | AVX) != 0 {
        copy(state, 24, area, 24, 8);
    }
    if wanted & SSE != 0 {
        copy(state, 160, area, 160, 256);
    }
    for number in numbers(wanted) {
        let (from, len) = component(number);
        copy(state, from, area, offset(number, wanted, compacted), len);
    }
    let header = if compacted {
        area[HEADER + 8..EXTENDED].fill(0);
        area[HEADER + 8..HEADER + 16].copy_from_slice(&(COMPACTED | wanted).to_le_bytes());
        in_use & wanted
    } else {
        let before = word(area, HEADER).unwrap_or(0);
        before & !wanted | in_use & wanted
    };
    area[HEADER..HEADER + 8].copy_from_slice(&header.to_le_bytes());
}

/// Reads the wanted components of an area into a state in standard form; those the area does not hold get their initial
/// value. `false`: the processor would refuse the area.
fn restore(state: &mut [u8], wanted: u64, form: Form, area: &[u8]) -> bool {
    let load = wanted & form.held;
    let takes_mxcsr = match form.compacted {
        None => wanted & (SSE | AVX) != 0,
        Some(_) => load & (SSE | AVX) != 0,
    };
    if takes_mxcsr {
        let mxcsr = area
            .get(24..28)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(u32::MAX, u32::from_le_bytes);
        if mxcsr & !MXCSR_MASK != 0 {
            return false;
        }
        state[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    } else if wanted & SSE != 0 && form.compacted.is_some() {
        state[24..28].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
    }
    if wanted & X87 != 0 {
        if load & X87 != 0 {
            copy(area, 0, state, 0, 24);
            copy(area, 32, state, 32, 128);
        } else {
            state[..24].fill(0);
            state[..2].copy_from_slice(&FCW_INITIAL.to_le_bytes());
            state[32..160].fill(0);
        }
    }
    if wanted & SSE != 0 {
        if load & SSE != 0 {
            copy(area, 160, state, 160, 256);
        } else {
            state[160..416].fill(0);
        }
    }
    for number in numbers(wanted) {
        let (to, len) = component(number);
        if load >> number & 1 == 1 {
            let from = form.compacted.map_or(to, |room| offset(number, room, true));
            copy(area, from, state, to, len);
        } else if let Some(gone) = state.get_mut(to..to + len) {
            gone.fill(0);
        }
    }
    let before = word(state, HEADER).unwrap_or(0);
    state[HEADER..HEADER + 8].copy_from_slice(&(before & !wanted | load).to_le_bytes());
    true
}

fn copy(from: &[u8], at: usize, to: &mut [u8], there: usize, len: usize) {
    if let (Some(source), Some(target)) = (from.get(at..at + len), to.get_mut(there..there + len)) {
        target.copy_from_slice(source);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at + 8)?
        .try_into()
        .ok()
        .map(u64::from_le_bytes)
}

fn bytes_of(state: &kvm_xsave) -> Area {
    state
        .region
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn state_of(bytes: &[u8]) -> kvm_xsave {
    let mut state = kvm_xsave::default();
    for (word, bytes) in state.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_le_bytes);
    }
    state
}

#[cfg(test)]
mod tests;
