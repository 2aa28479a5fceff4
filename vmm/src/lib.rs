//! Monitor: runs one guest on KVM, captures it into files and loads it from them.
//!
//! A process runs one [`Monitor`]. The host controls it over the socket at descriptor 0 (`vmm_api::wire`): create a VM,
//! boot a kernel or load a snapshot, resume, pause, capture. Begin with `monitor` (the loop), then `machine` (the parts
//! and the order in which KVM wants them), `vcpu` (thread, exits and state) and `virtio`. `emulate` is for hosts whose
//! KVM interprets guest kernel mode. `jail` has what a monitor gives up before its guest exists.
//!
//! Input from a guest or a file is hostile until decoded. All unsafe code is in `sys`.

#![deny(unsafe_code)]

mod arch;
mod bus;
mod emulate;
mod host;
mod image;
mod jail;
mod machine;
mod memory;
mod monitor;
mod serial;
#[allow(unsafe_code)]
mod sys;
mod vcpu;
mod virtio;

pub use self::{jail::harden, monitor::Monitor};
#[cfg(feature = "testing")]
pub use self::{monitor::Takeover, sys::raw};
