//! Virtual machines, with the smallest guest: a loop of port writes in user mode.

use anyhow::Context;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    record::Record,
    sys::{self, Mapping},
};

const MEMORY: usize = 512 << 20;
/// `out 0x10, al` in a loop.
const CODE: [u8; 4] = [0xe6, 0x10, 0xeb, 0xfc];
const ENTRY: u64 = 0x10_0000;
const TABLES: u64 = 0x1000;
/// Pages that are touched.
const TOUCHED: u32 = 0x40_0000;

/// A VM without a guest. Fields drop in order.
struct Shell {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: Mapping,
}

fn shell(kvm: &Kvm, cpuid: &CpuId) -> anyhow::Result<Shell> {
    let vm = kvm.create_vm().context("create a VM")?;
    let memory = Mapping::anonymous(MEMORY)?;
    sys::add_memory(&vm, &memory)?;
    vm.create_irq_chip().context("create an interrupt chip")?;
    let vcpu = vm.create_vcpu(0).context("create a vCPU")?;
    vcpu.set_cpuid2(cpuid).context("set CPUID")?;
    Ok(Shell {
        vcpu,
        _vm: vm,
        memory,
    })
}

pub(super) fn create() -> anyhow::Result<Record> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut shells = Vec::new();
    Record::of(100, || {
        shells.push(shell(&kvm, &cpuid)?);
        Ok(())
    })
}

/// A prepared VM is given memory and registers and runs to its first exit.
pub(super) fn claim() -> anyhow::Result<Record> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let memfd = memfd_create("guest", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memfd, MEMORY as u64)?;
    write_guest(&Mapping::shared(&memfd, MEMORY)?);
    let mut shells = (0..100)
        .map(|_| shell(&kvm, &cpuid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut waiting = shells.iter_mut();
    Record::of(100, || {
        let shell = waiting.next().context("no VM left")?;
        shell.memory.replace_private(&memfd)?;
        set_state(&shell.vcpu)?;
        run(&mut shell.vcpu)
    })
}

/// A running guest writes pages that are all there: for each, what mapping it into the guest costs.
pub(super) fn touch() -> anyhow::Result<Record> {
    const PAGES: u32 = 2048;
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut record = Record::new()?;
    for _ in 0..20 {
        let mut shell = shell(&kvm, &cpuid)?;
        write_guest(&shell.memory);
        // mov edi, TOUCHED; mov ecx, PAGES; next: inc dword [rdi]; add edi, 4096; dec ecx; jnz next; out 0x10, al
        let mut code = vec![0xbf];
        code.extend_from_slice(&TOUCHED.to_le_bytes());
        code.push(0xb9);
        code.extend_from_slice(&PAGES.to_le_bytes());
        code.extend_from_slice(&[
            0xff, 0x07, 0x81, 0xc7, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf4, 0xe6, 0x10,
        ]);
        write_bytes(&shell.memory, ENTRY, &code);
        for page in 0..PAGES {
            shell
                .memory
                .write(usize::try_from(TOUCHED + page * 4096)?, 1);
        }
        set_state(&shell.vcpu)?;
        let begun = std::time::Instant::now();
        run(&mut shell.vcpu)?;
        record.add(begun.elapsed() / PAGES);
    }
    Ok(record)
}

/// One exit of a running guest.
pub(super) fn exit() -> anyhow::Result<Record> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut shell = shell(&kvm, &cpuid)?;
    write_guest(&shell.memory);
    set_state(&shell.vcpu)?;
    Record::of(20_000, || run(&mut shell.vcpu))
}

fn run(vcpu: &mut VcpuFd) -> anyhow::Result<()> {
    match vcpu.run()? {
        VcpuExit::IoOut(0x10, _) => Ok(()),
        other => anyhow::bail!("the guest left otherwise: {other:?}"),
    }
}

/// An identity map of the first 16 MiB and the code.
fn write_guest(memory: &Mapping) {
    for directory in 1..8_u64 {
        write_bytes(
            memory,
            0x3000 + directory * 8,
            &(directory << 21 | 0x87).to_le_bytes(),
        );
    }
    for (at, entry) in [(TABLES, 0x2007_u64), (0x2000, 0x3007), (0x3000, 0x87)] {
        write_bytes(memory, at, &entry.to_le_bytes());
    }
    write_bytes(memory, ENTRY, &CODE);
}

fn write_bytes(memory: &Mapping, at: u64, bytes: &[u8]) {
    for (address, byte) in (at..).zip(bytes) {
        memory.write(usize::try_from(address).unwrap_or(usize::MAX), *byte);
    }
}

/// What a restore sets: registers, extended state, local APIC, a few MSRs.
fn set_state(vcpu: &VcpuFd) -> anyhow::Result<()> {
    let mut sregs: kvm_sregs = vcpu.get_sregs()?;
    let code = kvm_segment {
        limit: u32::MAX,
        selector: 0x33,
        type_: 11,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        selector: 0x2b,
        type_: 3,
        l: 0,
        db: 1,
        ..code
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8005_0033, TABLES, 0x20, 0x500);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: ENTRY,
        rflags: 0x3002,
        rsp: 0x8000,
        ..kvm_regs::default()
    })?;
    sys::set_xsave(vcpu, &vcpu.get_xsave()?)?;
    vcpu.set_lapic(&vcpu.get_lapic()?)?;
    let msrs = [
        0xc000_0081,
        0xc000_0082,
        0xc000_0083,
        0xc000_0084,
        0xc000_0102,
    ]
    .map(|index| kvm_bindings::kvm_msr_entry {
        index,
        ..kvm_bindings::kvm_msr_entry::default()
    });
    vcpu.set_msrs(&Msrs::from_entries(&msrs).map_err(|error| anyhow::anyhow!("{error:?}"))?)?;
    Ok(())
}
