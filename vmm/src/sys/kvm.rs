//! KVM calls that are unsafe in kvm-ioctls.

use kvm_bindings::{kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{VcpuFd, VmFd};

use super::mmap::Reservation;

/// Adds a memory slot: `len` bytes of the reservation from `offset`, at guest-physical address `guest`.
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
    // SAFETY: the range lies in the reservation (checked above), which stays mapped until the process exits, and
    // belongs to this slot only.
    unsafe { vm.set_user_memory_region(region) }
}

/// Sets the extended state of a vCPU.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: set_xsave requires that KVM's state is no larger than a `kvm_xsave`: it is larger only with features that
    // a process has to request (AMX), which this one does not.
    unsafe { vcpu.set_xsave(xsave) }
}
