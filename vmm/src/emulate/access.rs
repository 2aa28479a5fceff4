//! Guest memory access by linear address, with the rights of the guest kernel.

use kvm_bindings::kvm_sregs;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;

/// An exception to raise in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A page fault (#PF).
    Page {
        /// The faulting linear address.
        address: u64,
        /// The error code. Bit 0: the page is present. Bit 1: the access was a write.
        code: u32,
    },
    /// A general protection fault (#GP).
    Protection,
}

/// Page table walker of a vCPU in long mode, for supervisor accesses.
#[derive(Debug)]
pub(super) struct Access<'a> {
    memory: &'a GuestMemory,
    cr3: u64,
    levels: u32,
    write_protect: bool,
}

/// The kind of an access, which determines the rights that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AccessKind {
    Read,
    Write,
}

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

impl<'a> Access<'a> {
    pub(super) fn new(memory: &'a GuestMemory, sregs: &kvm_sregs) -> Self {
        let levels = if sregs.cr4 >> 12 & 1 == 1 { 5 } else { 4 };
        Self {
            memory,
            cr3: sregs.cr3,
            levels,
            write_protect: sregs.cr0 >> 16 & 1 == 1,
        }
    }

    /// Reads `bytes` at a linear address.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < bytes.len() {
            let linear = at.wrapping_add(done as u64);
            let len = (bytes.len() - done).min(bytes_to_page_end(linear));
            let part = &mut bytes[done..done + len];
            self.memory
                .read_slice(part, self.translate(linear, AccessKind::Read)?)
                .map_err(|_| Fault::Protection)?;
            done += len;
        }
        Ok(())
    }

    /// Writes `bytes` at a linear address. A fault on any page writes nothing.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut parts = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            let linear = at.wrapping_add(done as u64);
            let len = (bytes.len() - done).min(bytes_to_page_end(linear));
            parts.push((self.translate(linear, AccessKind::Write)?, done..done + len));
            done += len;
        }
        for (physical, range) in parts {
            self.memory
                .write_slice(&bytes[range], physical)
                .map_err(|_| Fault::Protection)?;
        }
        Ok(())
    }

    fn translate(&self, linear: u64, kind: AccessKind) -> Result<GuestAddress, Fault> {
        let write = kind == AccessKind::Write;
        let fault = |present: bool| Fault::Page {
            address: linear,
            code: u32::from(present) | u32::from(write) << 1,
        };
        let mut table = self.cr3 & FRAME;
        let mut writable = true;
        for level in (1..=self.levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let slot = GuestAddress(table + (linear >> shift & 0x1ff) * 8);
            let entry: u64 = self.memory.read_obj(slot).map_err(|_| Fault::Protection)?;
            if entry & PRESENT == 0 {
                return Err(fault(false));
            }
            writable &= entry & WRITABLE != 0;
            let last = level == 1 || (level <= 3 && entry & LARGE != 0);
            if last && write && !writable && self.write_protect {
                return Err(fault(true));
            }
            let flags = ACCESSED | if last && write { DIRTY } else { 0 };
            if entry & flags != flags {
                self.memory
                    .write_obj(entry | flags, slot)
                    .map_err(|_| Fault::Protection)?;
            }
            if last {
                let within = (1_u64 << shift) - 1;
                return Ok(GuestAddress(entry & FRAME & !within | linear & within));
            }
            table = entry & FRAME;
        }
        Err(Fault::Protection)
    }
}

fn bytes_to_page_end(linear: u64) -> usize {
    0x1000 - usize::try_from(linear & 0xfff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u64 = 0x5000;

    /// Maps linear page 0 read-only and page 1 writable.
    fn guest() -> (GuestMemory, kvm_sregs) {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10_000)]).unwrap();
        for (at, entry) in [
            (0x1000, 0x2003),
            (0x2000, 0x3003),
            (0x3000, 0x4003),
            (0x4000, CODE | 1),
            (0x4008, 0x6003),
        ] {
            memory.write_obj::<u64>(entry, GuestAddress(at)).unwrap();
        }
        (
            memory,
            kvm_sregs {
                cr3: 0x1000,
                cr0: 1 << 16,
                ..kvm_sregs::default()
            },
        )
    }

    #[test]
    fn write_to_read_only_page_faults_without_effect() {
        let (memory, sregs) = guest();
        let access = Access::new(&memory, &sregs);
        assert_eq!(
            access.write(0xff8, &[1; 16]),
            Err(Fault::Page {
                address: 0xff8,
                code: 0b11
            })
        );
        assert_eq!(
            access.write(0x1ff8, &[1; 16]),
            Err(Fault::Page {
                address: 0x2000,
                code: 0b10
            })
        );
        let mut bytes = [9; 8];
        access.read(0x1ff8, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 8]);
    }

    #[test]
    fn access_across_pages_sets_accessed_and_dirty_bits() {
        let (memory, sregs) = guest();
        let access = Access::new(&memory, &sregs);
        access.write(0x1000, &[7; 4]).unwrap();
        let mut bytes = [0; 8];
        access.read(0xffc, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0, 7, 7, 7, 7]);
        let entry: u64 = memory.read_obj(GuestAddress(0x4008)).unwrap();
        assert_eq!(entry & (ACCESSED | DIRTY), ACCESSED | DIRTY);
    }

    #[test]
    fn page_tables_outside_guest_memory_fault() {
        let (memory, mut sregs) = guest();
        sregs.cr3 = 0xffff_f000;
        assert_eq!(
            Access::new(&memory, &sregs).read(0, &mut [0; 8]),
            Err(Fault::Protection)
        );
    }
}
