//! Runs one guest, and can put it into a file and take it out again.
//!
//! One process is one monitor ([`Monitor`]). The host talks to it over the socket at its descriptor 0
//! (`vmm_api::wire`): prepare a VM, boot a kernel or load an image, let it run, stop it, write it down. Read `monitor`
//! first, then `machine` (how the parts go together, and in which order), `vcpu` (the thread, its exits, its state) and
//! `virtio`. `emulate` is for hosts whose KVM interprets guest kernel mode.
//!
//! Everything that comes out of a guest or a file is hostile until decoded; all unsafe code is in `sys`.

#![deny(unsafe_code)]

mod arch;
mod bus;
mod emulate;
mod image;
mod machine;
mod memory;
mod monitor;
mod serial;
#[allow(unsafe_code)]
mod sys;
mod vcpu;
mod virtio;

pub use self::monitor::Monitor;

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
