//! A virtual machine with no guest in it.

use std::io;

use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    arch::{cpuid, host::Host},
    memory::Memory,
};

/// Where KVM keeps its own pages for the real-mode task switch on Intel, in the hole.
const TSS_ADDRESS: usize = 0xfffb_d000;
/// The most vCPUs of a machine.
const VCPUS: u8 = 32;

/// Everything of a machine that does not depend on its guest.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) host: Host,
    pub(crate) fd: VmFd,
    pub(crate) memory: Memory,
    pub(crate) vcpus: Vec<VcpuFd>,
    /// MSRs that KVM can save here.
    pub(crate) msr_indices: Vec<u32>,
    cpuid: CpuId,
}

/// A virtual machine that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VmError {
    #[error("{0}")]
    Kvm(&'static str, #[source] kvm_ioctls::Error),
    #[error("give memory to the virtual machine")]
    Memory(#[source] io::Error),
    #[error("{0} vCPUs asked for: between 1 and {VCPUS} are possible")]
    Vcpus(u8),
}

impl Vm {
    pub(crate) fn new(vcpus: u8, memory: u64) -> Result<Self, VmError> {
        if vcpus == 0 || vcpus > VCPUS {
            return Err(VmError::Vcpus(vcpus));
        }
        let did = |what| move |error| VmError::Kvm(what, error);
        let host = Host::detect();
        let kvm = Kvm::new().map_err(did("open /dev/kvm"))?;
        let fd = kvm.create_vm().map_err(did("create virtual machine"))?;
        let memory = Memory::new(&fd, memory).map_err(VmError::Memory)?;
        fd.set_tss_address(TSS_ADDRESS)
            .map_err(did("set TSS address"))?;
        fd.create_irq_chip().map_err(did("create interrupt chip"))?;
        let cpuid = cpuid::base(&kvm, host, vcpus).map_err(did("get supported CPUID"))?;
        let mut fds = Vec::new();
        for id in 0..vcpus {
            fds.push(fd.create_vcpu(u64::from(id)).map_err(did("create vCPU"))?);
        }
        let msr_indices = kvm
            .get_msr_index_list()
            .map_err(did("list MSRs"))?
            .as_slice()
            .to_vec();
        Ok(Self {
            host,
            fd,
            memory,
            vcpus: fds,
            msr_indices,
            cpuid,
        })
    }

    /// Tells each vCPU what its processor is.
    pub(crate) fn set_cpuid(&self) -> Result<(), kvm_ioctls::Error> {
        let count = self.vcpu_count();
        for (id, vcpu) in (0..count).zip(&self.vcpus) {
            vcpu.set_cpuid2(&cpuid::for_vcpu(&self.cpuid, id, count))?;
        }
        Ok(())
    }

    /// How many vCPUs there are.
    pub(crate) fn vcpu_count(&self) -> u8 {
        u8::try_from(self.vcpus.len()).unwrap_or(u8::MAX)
    }

    /// A descriptor that raises an interrupt line when written.
    pub(crate) fn interrupt(&self, line: u32) -> io::Result<EventFd> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        self.fd.register_irqfd(&event, line)?;
        Ok(event)
    }
}
