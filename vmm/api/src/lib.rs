//! What may be asked of a monitor.
//!
//! A monitor (`catnap-vmm`) is one process that runs one guest. It begins as a [`Blank`], with a VM made and no guest in
//! it; booting or loading uses the blank up and gives a [`Machine`]. A machine can be paused, captured and resumed, and a
//! stream can be opened to any vsock port of its guest. Dropping it kills it.

#![forbid(unsafe_code)]

#[cfg(feature = "testing")]
pub mod fake;
#[cfg(feature = "testing")]
pub mod flat;
mod machine;
mod page;
mod process;
mod spec;
pub mod wire;

pub use self::{
    machine::{
        Blank, BootError, CaptureError, DialError, Exit, Hypervisor, LoadError, LoadReport,
        Machine, MachineError, SpawnError,
    },
    page::{PAGE_SIZE, PageRecord, page_digest},
    process::{Kvm, Monitor, Process, check_userfaultfd},
    spec::{
        BlankSpec, BootSpec, CaptureSpec, Captured, Disk, DiskLayer, LoadSpec, MachineFiles,
        MemoryRegion, MemorySource, Pager, TopLayer,
    },
};
