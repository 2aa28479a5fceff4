//! The boundary between a host and the monitors that run its guests.
//!
//! A monitor (`catnap-vmm`) is one process that runs one guest. A [`Hypervisor`] spawns it as a [`Blank`]: a VM without
//! a guest. Booting a kernel or loading a snapshot consumes the blank and returns a [`Machine`]. A machine can be
//! paused, captured and resumed, and streams can be opened to the vsock ports of its guest. Dropping it kills it.
//!
//! Begin with `machine`, whose doc comments are the contract; `contract` (feature `testing`) checks each of their
//! sentences. `kvm` implements it with processes and the protocol in [`wire`].

#![deny(unsafe_code)]

#[cfg(feature = "testing")]
pub mod contract;
mod error;
mod exit;
#[cfg(feature = "testing")]
pub mod fake;
#[cfg(feature = "testing")]
pub mod flat;
mod kvm;
mod machine;
mod page;
pub mod platform;
mod spec;
#[allow(unsafe_code)]
mod sys;
pub mod wire;

pub use self::{
    error::{BootError, CaptureError, DialError, LoadError, MachineError, SpawnError},
    exit::Exit,
    kvm::{FIRST_USER, Kvm, KvmBlank, check_userfaultfd},
    machine::{Blank, Hypervisor, LoadReport, Machine},
    page::{PAGE_SIZE, PageRecord, page_digest},
    spec::{
        BlankSpec, BootSpec, CaptureSpec, Captured, Disk, DiskLayer, LoadSpec, MachineFiles,
        MemoryRegion, MemorySource, NextLayers, Pager, TopLayer,
    },
};
