//! CPUID of the guest.

use std::arch::x86_64::{__cpuid, __cpuid_count};

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;

use super::host_cpu::HostCpu;

/// XSAVE state components of a guest: x87, SSE, AVX and AVX-512. AMX would add 8 KiB to each vCPU's state.
pub(crate) const STATE_COMPONENTS: u64 = 0xe7;

const FEATURES: u32 = 0x1;
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];
const EXTENDED_STATE: u32 = 0xd;
const EXTENDED_FEATURES: u32 = 0x7;
const PERFORMANCE: u32 = 0xa;
const KVM_FEATURES: u32 = 0x4000_0001;
const ADDRESS_SIZES: u32 = 0x8000_0008;

/// Restricts the CPUID that KVM supports to features that a snapshot preserves. [`for_vcpu`] sets the parts that differ
/// between vCPUs.
pub(crate) fn base(kvm: &Kvm, host_cpu: HostCpu, vcpus: u8) -> Result<CpuId, kvm_ioctls::Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            (FEATURES, _) => {
                // x2APIC, TSC deadline timer, hypervisor.
                entry.ecx |= 1 << 21 | 1 << 24 | 1 << 31;
                entry.ebx = entry.ebx & 0xff00_ffff | u32::from(vcpus) << 16;
                // HTT: more than one logical processor.
                entry.edx = entry.edx & !(1 << 28) | u32::from(vcpus > 1) << 28;
            }
            (EXTENDED_FEATURES, 0) => entry.edx &= !(1 << 22 | 1 << 24 | 1 << 25),
            (EXTENDED_STATE, 0) => {
                entry.eax &= low_half(STATE_COMPONENTS);
                entry.edx = 0;
                entry.ecx = state_size(entry.eax);
                entry.ebx = entry.ecx;
            }
            // Without supervisor state components, XSAVES saves the same as XSAVEC.
            (EXTENDED_STATE, 1) => {
                entry.eax &= if host_cpu.emulated_cpl0 { 0 } else { 0b111 };
                entry.ecx = 0;
                entry.edx = 0;
            }
            (EXTENDED_STATE, component)
                if component < 64 && STATE_COMPONENTS >> component & 1 == 0 =>
            {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
            }
            (PERFORMANCE, _) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            // Clock sources that a snapshot preserves; no asynchronous page faults, no paravirtual end of interrupt.
            (KVM_FEATURES, _) => entry.eax &= 1 << 0 | 1 << 1 | 1 << 3 | 1 << 24,
            // FXSAVE saves the error pointers; without the bit, a workaround for old AMD processors runs FNCLEX at each
            // context switch.
            (ADDRESS_SIZES, _) => entry.ebx |= u32::from(host_cpu.emulated_cpl0) << 2,
            _ => {}
        }
    }
    Ok(cpuid)
}

/// Sets the APIC id and topology of one vCPU.
pub(crate) fn for_vcpu(base: &CpuId, id: u8, vcpus: u8) -> CpuId {
    let mut cpuid = base.clone();
    let width = u32::from(vcpus.max(1)).next_power_of_two().trailing_zeros();
    for entry in cpuid.as_mut_slice() {
        if entry.function == FEATURES {
            entry.ebx = entry.ebx & 0x00ff_ffff | u32::from(id) << 24;
        } else if TOPOLOGY.contains(&entry.function) {
            entry.flags |= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
            entry.edx = u32::from(id);
            (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                0 => (0, 1, 1 << 8),
                1 => (width, u32::from(vcpus), 2 << 8 | 1),
                index => (0, 0, index),
            };
        }
    }
    cpuid
}

/// Returns offset and size of a state component in the standard format of XSAVE.
pub(crate) fn component(number: u32) -> (usize, usize) {
    let leaf = __cpuid_count(EXTENDED_STATE, number);
    (leaf.ebx as usize, leaf.eax as usize)
}

/// Returns whether the compacted format aligns the component to 64 bytes.
pub(crate) fn aligned_when_compacted(number: u32) -> bool {
    __cpuid_count(EXTENDED_STATE, number).ecx & 0b10 != 0
}

/// Returns vendor, family and model of the processor, which a machine image records.
pub(crate) fn processor() -> [u32; 4] {
    let vendor = __cpuid(0);
    let model = __cpuid(1).eax & 0x0fff_3ff0;
    [vendor.ebx, vendor.edx, vendor.ecx, model]
}

fn state_size(components: u32) -> u32 {
    let mut size = 576;
    for number in 2..32 {
        if components >> number & 1 == 1 {
            let (offset, len) = component(number);
            size = size.max(u32::try_from(offset + len).unwrap_or(0));
        }
    }
    size
}

fn low_half(mask: u64) -> u32 {
    u32::try_from(mask & 0xffff_ffff).unwrap_or(0)
}
