//! VM without a guest: memory, interrupt controller and vCPUs.

use std::io;

use kvm_bindings::CpuId;
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::{
    arch::{cpuid, host_cpu::HostCpu},
    host::Host,
    jail::filter::Filter,
    memory::Memory,
    vcpu::VcpuThread,
};

/// Address of the pages that KVM uses for real mode on Intel, in the MMIO hole.
const TSS_ADDRESS: usize = 0xfffb_d000;
/// Maximum number of vCPUs.
const VCPU_LIMIT: u8 = 32;

/// The parts of a machine that do not depend on its guest.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) host_cpu: HostCpu,
    pub(crate) fd: VmFd,
    pub(crate) memory: Memory,
    pub(crate) vcpus: Vec<VcpuThread>,
    /// MSRs that this host's KVM can save.
    pub(crate) msr_indices: Vec<u32>,
    cpuid: CpuId,
}

/// Failure to create a VM.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VmError {
    #[error("failed to {0}")]
    Kvm(&'static str, #[source] kvm_ioctls::Error),
    #[error("failed to map guest memory")]
    Memory(#[source] io::Error),
    #[error("failed to start vCPU thread {0}")]
    Thread(u8, #[source] io::Error),
    #[error("{0} vCPUs requested, supported are 1 to {VCPU_LIMIT}")]
    Vcpus(u8),
}

impl Vm {
    /// Creates the VM and its stopped vCPU threads, each under `filter` if there is one.
    pub(crate) fn new(
        host: Host,
        vcpus: u8,
        memory: u64,
        filter: Option<&Filter>,
    ) -> Result<Self, VmError> {
        if vcpus == 0 || vcpus > VCPU_LIMIT {
            return Err(VmError::Vcpus(vcpus));
        }
        let context = |operation| move |error| VmError::Kvm(operation, error);
        let Host {
            kvm,
            cpu: host_cpu,
            userfaultfd,
            pagemap,
        } = host;
        let fd = kvm.create_vm().map_err(context("create VM"))?;
        let memory = Memory::new(&fd, memory, pagemap, userfaultfd).map_err(VmError::Memory)?;
        fd.set_tss_address(TSS_ADDRESS)
            .map_err(context("set TSS address"))?;
        fd.create_irq_chip()
            .map_err(context("create interrupt controller"))?;
        let cpuid = cpuid::base(&kvm, host_cpu, vcpus).map_err(context("get supported CPUID"))?;
        let mut threads = Vec::new();
        for id in 0..vcpus {
            let vcpu = fd
                .create_vcpu(u64::from(id))
                .map_err(context("create vCPU"))?;
            let thread = VcpuThread::spawn(id, vcpu, filter.cloned())
                .map_err(|source| VmError::Thread(id, source))?;
            threads.push(thread);
        }
        let msr_indices = kvm
            .get_msr_index_list()
            .map_err(context("list MSRs"))?
            .as_slice()
            .to_vec();
        Ok(Self {
            host_cpu,
            fd,
            memory,
            vcpus: threads,
            msr_indices,
            cpuid,
        })
    }

    /// Sets the CPUID of each vCPU.
    pub(crate) fn set_cpuid(&self) -> Result<(), kvm_ioctls::Error> {
        let count = self.vcpu_count();
        for (id, vcpu) in (0..count).zip(&self.vcpus) {
            vcpu.fd()
                .set_cpuid2(&cpuid::for_vcpu(&self.cpuid, id, count))?;
        }
        Ok(())
    }

    /// Returns the number of vCPUs.
    pub(crate) fn vcpu_count(&self) -> u8 {
        u8::try_from(self.vcpus.len()).unwrap_or(u8::MAX)
    }

    /// Creates an event descriptor that raises the interrupt line `irq` when written.
    pub(crate) fn irqfd(&self, irq: u32) -> io::Result<EventFd> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        self.fd.register_irqfd(&event, irq)?;
        Ok(event)
    }
}
