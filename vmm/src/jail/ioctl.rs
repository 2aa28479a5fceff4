//! `ioctl` requests that the filters allow, as the kernel's headers compose them.

use std::mem::size_of;

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid2, kvm_debugregs, kvm_fpu, kvm_irqchip, kvm_irqfd, kvm_lapic_state,
    kvm_mp_state, kvm_msrs, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

use crate::sys::{pagemap, uffd};

const KVM: u32 = 0xae;
const READ: u32 = 2 << 30;
const WRITE: u32 = 1 << 30;

/// Entering the guest, and what emulating an instruction reads and writes.
pub(super) const VCPU: &[u32] = &[
    kvm(0x80),
    reads::<kvm_regs>(0x81),
    writes::<kvm_regs>(0x82),
    reads::<kvm_sregs>(0x83),
    writes::<kvm_sregs>(0x84),
    reads::<kvm_vcpu_events>(0x9f),
    writes::<kvm_vcpu_events>(0xa0),
    reads::<kvm_xsave>(0xa4),
    writes::<kvm_xsave>(0xa5),
    reads::<kvm_xcrs>(0xa6),
];

/// Saving and restoring the state of a machine, and its memory and sockets.
pub(super) const MONITOR: &[u32] = &[
    // VM.
    exchanges::<kvm_irqchip>(0x62),
    reads::<kvm_irqchip>(0x63),
    writes::<kvm_irqfd>(0x76),
    writes::<kvm_clock_data>(0x7b),
    reads::<kvm_clock_data>(0x7c),
    // vCPU.
    reads::<kvm_regs>(0x81),
    writes::<kvm_regs>(0x82),
    reads::<kvm_sregs>(0x83),
    writes::<kvm_sregs>(0x84),
    exchanges::<kvm_msrs>(0x88),
    writes::<kvm_msrs>(0x89),
    writes::<kvm_fpu>(0x8d),
    reads::<kvm_lapic_state>(0x8e),
    writes::<kvm_lapic_state>(0x8f),
    writes::<kvm_cpuid2>(0x90),
    exchanges::<kvm_cpuid2>(0x91),
    reads::<kvm_mp_state>(0x98),
    writes::<kvm_mp_state>(0x99),
    reads::<kvm_vcpu_events>(0x9f),
    writes::<kvm_vcpu_events>(0xa0),
    reads::<kvm_debugregs>(0xa1),
    writes::<kvm_debugregs>(0xa2),
    reads::<kvm_xsave>(0xa4),
    writes::<kvm_xsave>(0xa5),
    reads::<kvm_xcrs>(0xa6),
    writes::<kvm_xcrs>(0xa7),
    // KVM_KVMCLOCK_CTRL.
    kvm(0xad),
    // Memory and sockets.
    pagemap::SCAN,
    uffd::REGISTER,
    // FIONBIO.
    0x5421,
];

const fn kvm(number: u32) -> u32 {
    KVM << 8 | number
}

/// `_IOR`: the kernel fills a `T`.
const fn reads<T>(number: u32) -> u32 {
    READ | size::<T>() << 16 | kvm(number)
}

/// `_IOW`: the kernel takes a `T`.
const fn writes<T>(number: u32) -> u32 {
    WRITE | size::<T>() << 16 | kvm(number)
}

/// `_IOWR`: the kernel takes and fills a `T`.
const fn exchanges<T>(number: u32) -> u32 {
    READ | WRITE | size::<T>() << 16 | kvm(number)
}

const fn size<T>() -> u32 {
    assert!(size_of::<T>() < 1 << 14);
    #[allow(clippy::cast_possible_truncation, reason = "checked above")]
    {
        size_of::<T>() as u32
    }
}
