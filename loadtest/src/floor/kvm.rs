//! Cost of KVM operations, with a guest that loops over port writes in user mode.

use anyhow::Context;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    histogram::Histogram,
    sys::{self, Mapping},
};

const MEMORY: usize = 512 << 20;
/// `out 0x10, al` in a loop.
const CODE: [u8; 4] = [0xe6, 0x10, 0xeb, 0xfc];
const ENTRY: u64 = 0x10_0000;
const TABLES: u64 = 0x1000;
/// Guest-physical address of the touched pages.
const TOUCHED: u32 = 0x40_0000;

/// A VM without a guest. Fields drop in declaration order.
struct EmptyVm {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: Mapping,
}

fn create_vm(kvm: &Kvm, cpuid: &CpuId) -> anyhow::Result<EmptyVm> {
    let vm = kvm.create_vm().context("failed to create VM")?;
    let memory = Mapping::anonymous(MEMORY)?;
    sys::add_memory(&vm, &memory)?;
    vm.create_irq_chip()
        .context("failed to create interrupt chip")?;
    let vcpu = vm.create_vcpu(0).context("failed to create vCPU")?;
    vcpu.set_cpuid2(cpuid).context("failed to set CPUID")?;
    Ok(EmptyVm {
        vcpu,
        _vm: vm,
        memory,
    })
}

pub(super) fn create() -> anyhow::Result<Histogram> {
    let kvm = Kvm::new().context("failed to open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut vms = Vec::new();
    Histogram::measure(100, || {
        vms.push(create_vm(&kvm, &cpuid)?);
        Ok(())
    })
}

/// Measures setting memory and registers of a prepared VM and running it to its first exit.
pub(super) fn start() -> anyhow::Result<Histogram> {
    let kvm = Kvm::new().context("failed to open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let memfd = memfd_create("guest", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memfd, MEMORY as u64)?;
    write_guest(&Mapping::shared(&memfd, MEMORY)?);
    let mut vms = (0..100)
        .map(|_| create_vm(&kvm, &cpuid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut remaining = vms.iter_mut();
    Histogram::measure(100, || {
        let vm = remaining.next().context("no VM left")?;
        vm.memory.replace_private(&memfd)?;
        set_state(&vm.vcpu)?;
        run(&mut vm.vcpu)
    })
}

/// Measures mapping a present page into the guest, for each page that the guest writes.
pub(super) fn touch() -> anyhow::Result<Histogram> {
    const PAGES: u32 = 2048;
    let kvm = Kvm::new().context("failed to open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut histogram = Histogram::new()?;
    for _ in 0..20 {
        let mut vm = create_vm(&kvm, &cpuid)?;
        write_guest(&vm.memory);
        // mov edi, TOUCHED; mov ecx, PAGES; next: inc dword [rdi]; add edi, 4096; dec ecx; jnz next; out 0x10, al
        let mut code = vec![0xbf];
        code.extend_from_slice(&TOUCHED.to_le_bytes());
        code.push(0xb9);
        code.extend_from_slice(&PAGES.to_le_bytes());
        code.extend_from_slice(&[
            0xff, 0x07, 0x81, 0xc7, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf4, 0xe6, 0x10,
        ]);
        write_bytes(&vm.memory, ENTRY, &code);
        for page in 0..PAGES {
            vm.memory.write(usize::try_from(TOUCHED + page * 4096)?, 1);
        }
        set_state(&vm.vcpu)?;
        let started = std::time::Instant::now();
        run(&mut vm.vcpu)?;
        histogram.add(started.elapsed() / PAGES);
    }
    Ok(histogram)
}

/// Measures one exit of a running guest.
pub(super) fn exit() -> anyhow::Result<Histogram> {
    let kvm = Kvm::new().context("failed to open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut vm = create_vm(&kvm, &cpuid)?;
    write_guest(&vm.memory);
    set_state(&vm.vcpu)?;
    Histogram::measure(20_000, || run(&mut vm.vcpu))
}

fn run(vcpu: &mut VcpuFd) -> anyhow::Result<()> {
    match vcpu.run()? {
        VcpuExit::IoOut(0x10, _) => Ok(()),
        other => anyhow::bail!("unexpected VM exit: {other:?}"),
    }
}

/// Writes the code and page tables that map the first 16 MiB identically.
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

/// Sets the state that a restore sets: registers, extended state, local APIC, a few MSRs.
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
