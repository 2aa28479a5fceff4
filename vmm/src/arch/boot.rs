//! 64-bit boot protocol of Linux (`Documentation/arch/x86/boot.rst`).

use std::{ffi::CString, fs::File, io};

use linux_loader::{
    configurator::{BootConfigurator, BootParams, linux::LinuxBootConfigurator},
    loader::{Elf, KernelLoader, bootparam::boot_params, load_cmdline},
};
use vm_memory::{Bytes, GuestAddress};

use super::mptable;
use crate::memory::{GuestMemory, HOLE_END, HOLE_START};

const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// Address and maximum length of the command line.
const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
const COMMAND_LINE_LIMIT: usize = 2048;
const HIGH_MEMORY: u64 = 0x10_0000;
/// End of the low memory that the kernel may use; the MP table and the legacy hole follow.
const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Address of the page tables: one PML4, one PDPT and four page directories map the first 4 GiB.
pub(crate) const PAGE_TABLES: u64 = 0x9000;
pub(crate) const GDT: u64 = 0x500;
/// Kernel code and data, task state, then user data and code for the flat guest, which has no descriptor tables of its
/// own.
pub(crate) const GDT_ENTRIES: [u64; 7] = [
    0,
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x0000_8b00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
];

/// Initial registers of the boot protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) rip: u64,
    pub(crate) rsi: u64,
}

/// Writes kernel, command line and tables to guest memory.
pub(crate) fn load(
    guest: &GuestMemory,
    memory: u64,
    vcpus: u8,
    kernel: &mut File,
    command_line: &str,
) -> Result<Entry, BootError> {
    let kernel = Elf::load(guest, None, kernel, Some(GuestAddress(HIGH_MEMORY)))?;
    let mut line =
        linux_loader::cmdline::Cmdline::new(COMMAND_LINE_LIMIT).map_err(BootError::CommandLine)?;
    line.insert_str(command_line)
        .map_err(BootError::CommandLine)?;
    load_cmdline(guest, COMMAND_LINE, &line)?;
    let text: CString = line.as_cstring().map_err(BootError::CommandLine)?;

    let mut params = boot_params::default();
    params.hdr.type_of_loader = 0xff;
    params.hdr.boot_flag = 0xaa55;
    params.hdr.header = 0x5372_6448;
    params.hdr.cmd_line_ptr = 0x2_0000;
    params.hdr.cmdline_size = u32::try_from(text.as_bytes_with_nul().len()).unwrap_or(u32::MAX);
    params.hdr.kernel_alignment = 0x0100_0000;
    add_memory_map(&mut params, memory);
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&params, ZERO_PAGE), guest)?;

    mptable::write(guest, vcpus)?;
    write_tables(guest)?;
    Ok(Entry {
        rip: kernel.kernel_load.0,
        rsi: ZERO_PAGE.0,
    })
}

fn add_memory_map(params: &mut boot_params, memory: u64) {
    let mut ranges = vec![
        (0, LOW_MEMORY_END),
        (HIGH_MEMORY, memory.min(HOLE_START) - HIGH_MEMORY),
    ];
    if memory > HOLE_START {
        ranges.push((HOLE_END, memory - HOLE_START));
    }
    for (entry, (addr, size)) in params.e820_table.iter_mut().zip(&ranges) {
        entry.addr = *addr;
        entry.size = *size;
        entry.r#type = 1;
    }
    params.e820_entries = 2 + u8::from(memory > HOLE_START);
}

/// Writes the GDT and an identity map of the first 4 GiB, accessible from user mode. A kernel replaces both early.
fn write_tables(guest: &GuestMemory) -> Result<(), BootError> {
    for (at, entry) in (GDT..).step_by(8).zip(GDT_ENTRIES) {
        guest.write_obj(entry, GuestAddress(at))?;
    }
    const TABLE: u64 = 0x1000;
    // Present, writable, user; accessed and dirty, so that the processor does not write the entries.
    const USABLE: u64 = 0b110_0111;
    guest.write_obj(PAGE_TABLES + TABLE + USABLE, GuestAddress(PAGE_TABLES))?;
    for gib in 0..4_u64 {
        let directory = PAGE_TABLES + (2 + gib) * TABLE;
        guest.write_obj(
            directory + USABLE,
            GuestAddress(PAGE_TABLES + TABLE + gib * 8),
        )?;
        for entry in 0..512_u64 {
            let page = (gib << 30) + (entry << 21);
            guest.write_obj(page | USABLE | 0x80, GuestAddress(directory + entry * 8))?;
        }
    }
    Ok(())
}

/// Failure to load a kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("the kernel is not an uncompressed x86-64 ELF that fits guest memory")]
    Kernel(#[from] linux_loader::loader::Error),
    #[error("invalid command line")]
    CommandLine(#[source] linux_loader::cmdline::Error),
    #[error("failed to write boot parameters")]
    Parameters(#[from] linux_loader::configurator::Error),
    #[error("failed to write guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
    #[error("failed to write guest memory")]
    Io(#[from] io::Error),
}
