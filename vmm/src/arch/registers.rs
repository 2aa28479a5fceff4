//! Initial registers of a vCPU.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::boot::{Entry, GDT, GDT_ENTRIES, PAGE_TABLES};

const IA32_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRING: u64 = 1;
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Local vector table entries of the local APIC, by offset in bytes.
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const DELIVER_NMI: u32 = 0b100 << 8;
const DELIVER_EXTERNAL: u32 = 0b111 << 8;

/// Sets the initial registers of a vCPU; the first one gets the kernel's entry point.
pub(crate) fn set_up(vcpu: &VcpuFd, entry: Option<Entry>) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_fpu(&kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..kvm_fpu::default()
    })?;
    set_msrs(vcpu)?;
    if let Some(entry) = entry {
        set_long_mode(vcpu)?;
        vcpu.set_regs(&kvm_regs {
            rip: entry.rip,
            rsi: entry.rsi,
            rsp: 0x8ff0,
            rbp: 0x8ff0,
            rflags: 2,
            ..kvm_regs::default()
        })?;
    }
    set_local_interrupts(vcpu)
}

fn set_msrs(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let entries = [
        (IA32_MISC_ENABLE, FAST_STRING),
        (MTRR_DEFAULT_TYPE, MTRR_WRITE_BACK),
    ]
    .map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let msrs = Msrs::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))?;
    match vcpu.set_msrs(&msrs)? {
        2 => Ok(()),
        _ => Err(kvm_ioctls::Error::new(libc::EINVAL)),
    }
}

fn set_long_mode(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let code = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 0xb,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        selector: 0x18,
        type_: 3,
        l: 0,
        db: 1,
        ..code
    };
    let task = kvm_segment {
        selector: 0x20,
        type_: 0xb,
        limit: 0xffff,
        present: 1,
        ..kvm_segment::default()
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = u16::try_from(GDT_ENTRIES.len() * 8 - 1).unwrap_or(u16::MAX);
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = 0x8005_0033;
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 = 0x20;
    // Long mode enabled and active.
    sregs.efer |= 1 << 8 | 1 << 10;
    vcpu.set_sregs(&sregs)
}

fn set_local_interrupts(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut lapic = vcpu.get_lapic()?;
    for (offset, mode) in [(LVT_LINT0, DELIVER_EXTERNAL), (LVT_LINT1, DELIVER_NMI)] {
        for (register, byte) in lapic.regs[offset..offset + 4]
            .iter_mut()
            .zip(mode.to_le_bytes())
        {
            *register = byte.cast_signed();
        }
    }
    vcpu.set_lapic(&lapic)
}
