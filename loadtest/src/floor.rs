//! Cost of each kernel primitive that a wake consists of, on this machine.

mod kvm;
mod memory;
mod thread;

use std::time::Duration;

use self::thread::Placement;
use crate::{histogram::Histogram, report::Report};

/// Distribution of each primitive.
#[derive(Debug)]
pub(crate) struct Floor {
    syscall: Histogram,
    handoff_same_cpu: Histogram,
    handoff_cross_cpu: Histogram,
    spawn: Histogram,
    anonymous_fault: Histogram,
    cow_fault: Histogram,
    uffd_fault: Histogram,
    uffd_copy: Histogram,
    create: Histogram,
    start: Histogram,
    exit: Histogram,
    touch: Histogram,
}

impl Floor {
    pub(crate) fn measure() -> anyhow::Result<Self> {
        Ok(Self {
            syscall: thread::syscall()?,
            handoff_same_cpu: thread::handoff(Placement::SameCpu)?,
            handoff_cross_cpu: thread::handoff(Placement::OtherCpu)?,
            spawn: thread::spawn()?,
            anonymous_fault: memory::anonymous_fault()?,
            cow_fault: memory::cow_fault()?,
            uffd_fault: memory::uffd_fault()?,
            uffd_copy: memory::uffd_copy()?,
            create: kvm::create()?,
            start: kvm::start()?,
            exit: kvm::exit()?,
            touch: kvm::touch()?,
        })
    }

    pub(crate) fn report(&self, report: &mut Report) {
        for (name, histogram) in [
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
                "KVM: create VM, memory, interrupt chip and vCPU",
                &self.create,
            ),
            ("KVM: set memory and registers, to first exit", &self.start),
            ("KVM: exit from user mode and back", &self.exit),
            ("KVM: map a present page into the guest", &self.touch),
        ] {
            report.add(name, histogram, None);
        }
    }

    /// Sums the primitives of a wake: loading a guest that touches `pages` pages into a prepared VM.
    pub(crate) fn wake_cost(&self, source: PageSource, pages: u32) -> Duration {
        let page = match source {
            PageSource::Cow => &self.cow_fault,
            PageSource::Faulted => &self.uffd_fault,
            PageSource::Prefetched => &self.uffd_copy,
        };
        self.start.p50() + (page.p50() + self.touch.p50()) * pages
    }
}

/// Source of a page of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageSource {
    /// The kernel copies the page from a memfd on the first write.
    Cow,
    /// A userfaultfd handler installs the page on a fault.
    Faulted,
    /// The page is installed before the guest runs.
    Prefetched,
}
