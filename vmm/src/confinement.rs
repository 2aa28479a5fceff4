//! What a monitor gives up before it reads its first request.
//!
//! It keeps the user of its parent: its files come as descriptors, but it opens `/dev/kvm` and `/dev/userfaultfd` by name.

use std::{io, path::Path};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

use crate::sys::namespaces;

/// Namespaces of its own for network, IPC and host name, no capabilities, no new privileges, no core dumps. An
/// unprivileged monitor cannot have namespaces of its own and has no capabilities.
pub fn confine() -> io::Result<()> {
    set_no_new_privs(true)?;
    // A core dump would hold the guest's memory.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    match namespaces::unshare_host() {
        Err(Errno::PERM) => return Ok(()),
        unshared => unshared?,
    }
    let kept = kept_capabilities();
    for capability in CapabilitySet::all().difference(kept).iter() {
        match capability_is_in_bounding_set(capability) {
            // The kernel does not know it.
            Err(Errno::INVAL) | Ok(false) => {}
            Err(error) => return Err(error.into()),
            Ok(true) => remove_capability_from_bounding_set(capability)?,
        }
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    Ok(())
}

/// Without its device, a userfaultfd that serves the kernel's own faults needs a capability.
fn kept_capabilities() -> CapabilitySet {
    if Path::new("/dev/userfaultfd").exists() {
        CapabilitySet::empty()
    } else {
        CapabilitySet::SYS_PTRACE
    }
}
