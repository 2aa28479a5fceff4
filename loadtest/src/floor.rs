//! What the kernel charges on this machine for each primitive that waking is made of.

mod kvm;
mod memory;
mod thread;

use std::time::Duration;

use crate::{record::Record, report::Report};

/// Each primitive's distribution.
#[derive(Debug)]
pub(crate) struct Floor {
    syscall: Record,
    handoff_same_cpu: Record,
    handoff_cross_cpu: Record,
    spawn: Record,
    anonymous_fault: Record,
    cow_fault: Record,
    uffd_fault: Record,
    uffd_copy: Record,
    create: Record,
    claim: Record,
    exit: Record,
    touch: Record,
}

impl Floor {
    pub(crate) fn measure() -> anyhow::Result<Self> {
        Ok(Self {
            syscall: thread::syscall()?,
            handoff_same_cpu: thread::handoff(true)?,
            handoff_cross_cpu: thread::handoff(false)?,
            spawn: thread::spawn()?,
            anonymous_fault: memory::anonymous_fault()?,
            cow_fault: memory::cow_fault()?,
            uffd_fault: memory::uffd_fault()?,
            uffd_copy: memory::uffd_copy()?,
            create: kvm::create()?,
            claim: kvm::claim()?,
            exit: kvm::exit()?,
            touch: kvm::touch()?,
        })
    }

    pub(crate) fn report(&self, report: &mut Report) {
        for (name, record) in [
            ("system call", &self.syscall),
            ("thread hand-off and back, same CPU", &self.handoff_same_cpu),
            (
                "thread hand-off and back, two CPUs",
                &self.handoff_cross_cpu,
            ),
            ("process: spawn and wait", &self.spawn),
            ("page fault: anonymous, 4 KiB", &self.anonymous_fault),
            (
                "page fault: copy of a memfd page (Cow), 4 KiB",
                &self.cow_fault,
            ),
            (
                "page fault: userfaultfd, other thread, 4 KiB",
                &self.uffd_fault,
            ),
            ("UFFDIO_COPY in runs of 64, for each 4 KiB", &self.uffd_copy),
            (
                "KVM: VM, memory, interrupt chip and vCPU made",
                &self.create,
            ),
            ("KVM: memory and registers set, to first exit", &self.claim),
            ("KVM: exit from user mode and back", &self.exit),
            (
                "KVM: a page that is there mapped into the guest",
                &self.touch,
            ),
        ] {
            report.add(name, record, None);
        }
    }

    /// What giving a prepared VM a guest that touches `pages` pages costs the kernel, with memory that arrives so.
    pub(crate) fn of_wake(&self, arrival: Arrival, pages: u32) -> Duration {
        let page = match arrival {
            Arrival::Cow => &self.cow_fault,
            Arrival::Demanded => &self.uffd_fault,
            Arrival::Installed => &self.uffd_copy,
        };
        self.claim.p50() + (page.p50() + self.touch.p50()) * pages
    }
}

/// How a page arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The kernel copies it from a memfd.
    Cow,
    /// A userfaultfd asks for it.
    Demanded,
    /// It was installed ahead.
    Installed,
}
