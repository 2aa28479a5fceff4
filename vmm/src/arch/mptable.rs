//! MP table (Intel MultiProcessor Specification 1.4), through which a kernel without ACPI finds processors and I/O
//! APIC.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::GuestMemory;

/// Start of the last kilobyte of base memory, where kernels search for the table.
const FLOATING_POINTER: u64 = 0x9_fc00;
const TABLE: u64 = FLOATING_POINTER + 16;
const IO_APIC: u32 = 0xfec0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Number of interrupt lines.
const LINES: u8 = 24;

/// Writes the table for `vcpus` processors.
pub(crate) fn write(guest: &GuestMemory, vcpus: u8) -> Result<(), GuestMemoryError> {
    let (entries, count) = entries(vcpus);
    let mut table = Vec::with_capacity(44 + entries.len());
    table.extend_from_slice(b"PCMP");
    table.extend_from_slice(
        &u16::try_from(44 + entries.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    table.extend_from_slice(&[4, 0]);
    table.extend_from_slice(b"CATNAP  MICROVM     ");
    table.extend_from_slice(&[0; 6]);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    table.extend_from_slice(&entries);
    table[7] = checksum(&table);

    let mut pointer = Vec::with_capacity(16);
    pointer.extend_from_slice(b"_MP_");
    pointer.extend_from_slice(&u32::try_from(TABLE).unwrap_or(0).to_le_bytes());
    pointer.extend_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);

    guest.write_slice(&pointer, GuestAddress(FLOATING_POINTER))?;
    guest.write_slice(&table, GuestAddress(TABLE))
}

fn entries(vcpus: u8) -> (Vec<u8>, u16) {
    let mut bytes = Vec::new();
    let mut count = 0;
    let mut add = |entry: &[u8]| {
        bytes.extend_from_slice(entry);
        count += 1;
    };
    for id in 0..vcpus {
        let flags = if id == 0 { 3 } else { 1 };
        // Family 6, with an APIC and an FPU.
        add(&[
            0, id, 0x14, flags, 0, 6, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
    }
    let io_apic = vcpus;
    add(&[1, 0, b'I', b'S', b'A', b' ', b' ', b' ']);
    let [a, b, c, d] = IO_APIC.to_le_bytes();
    add(&[2, io_apic, 0x14, 1, a, b, c, d]);
    for line in 0..LINES {
        add(&[3, 0, 0, 0, 0, line, io_apic, line]);
    }
    // Local interrupts: PIC on LINT0, NMI on LINT1.
    add(&[4, 3, 0, 0, 0, 0, 0, 0]);
    add(&[4, 1, 0, 0, 0, 0, 0xff, 1]);
    (bytes, count)
}

/// Returns the byte that makes the sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mp_table_lists_every_processor_with_valid_checksums() {
        let guest = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        write(&guest, 3).unwrap();
        let mut pointer = [0_u8; 16];
        guest
            .read_slice(&mut pointer, GuestAddress(FLOATING_POINTER))
            .unwrap();
        assert_eq!(checksum(&pointer), 0);
        let len: u16 = guest.read_obj(GuestAddress(TABLE + 4)).unwrap();
        let mut table = vec![0; usize::from(len)];
        guest.read_slice(&mut table, GuestAddress(TABLE)).unwrap();
        assert_eq!(checksum(&table), 0);
        assert_eq!(
            table[44..]
                .chunks(20)
                .take(3)
                .map(|entry| entry[1])
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }
}
