//! The KVM calls that kvm-ioctls leaves to its caller.

use kvm_bindings::{kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{VcpuFd, VmFd};

use super::mmap::Reservation;

/// Gives the guest `len` bytes of the reservation from `offset` at guest address `guest`.
pub(crate) fn add_memory(
    vm: &VmFd,
    slot: u32,
    guest: u64,
    memory: &Reservation,
    offset: usize,
    len: usize,
) -> Result<(), kvm_ioctls::Error> {
    if offset.checked_add(len).is_none_or(|end| end > memory.len()) {
        return Err(kvm_ioctls::Error::new(libc::EINVAL));
    }
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: guest,
        memory_size: len as u64,
        userspace_addr: memory.address() + offset as u64,
    };
    // SAFETY: the range lies in the reservation (checked above), which stays mapped for the life of the process and is
    // given to one slot only.
    unsafe { vm.set_user_memory_region(region) }
}

/// Sets a vCPU's extended state.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: set_xsave wants a state no larger than a `kvm_xsave`: KVM's grows beyond that only with features that a
    // process has to ask for (AMX), which this one never does.
    unsafe { vcpu.set_xsave(xsave) }
}
