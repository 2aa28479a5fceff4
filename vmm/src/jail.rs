//! Jail of the monitor, which it enters before its guest exists: no privileges, and no files of the host by name.
//!
//! [`harden`] runs at the start of every monitor. [`enter`] runs once, when the host prepares the monitor, and
//! [`filter`] has the system calls that remain. The process is in a PID namespace of its own already: its parent
//! spawned it there.

pub(crate) mod filter;
mod ioctl;
mod root;

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};
use vmm_api::wire::Jail;

use crate::sys::namespaces;

/// Open files of a monitor: connections, layers of disks, and what capturing takes.
const FILE_LIMIT: u64 = 2048;
/// The kernel ends monitors before the gateway, whose adjustment is 0.
const OOM_SCORE_ADJUSTMENT: &str = "500";

/// Failure to enter the jail.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}")]
pub(crate) struct JailError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// Gives up new privileges, core dumps, and access of other processes of the user to this one.
pub fn harden() -> io::Result<()> {
    set_no_new_privs(true)?;
    // A core dump would hold the guest's memory.
    limit(Resource::Core, 0)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Moves the process into its control groups, namespaces and empty root directory, and to its own user without
/// capabilities. Call it while there is no other thread.
pub(crate) fn enter(jail: Jail, control_groups: Vec<OwnedFd>) -> Result<(), JailError> {
    let step = |step| move |source| JailError { step, source };
    for group in control_groups {
        let this_process = b"0";
        rustix::io::write(group.as_fd(), this_process)
            .map_err(|error| step("enter a control group")(error.into()))?;
    }
    fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT)
        .map_err(step("set the OOM score"))?;
    namespaces::unshare().map_err(|error| step("create namespaces")(error.into()))?;
    root::empty().map_err(|error| step("replace the root directory")(error.into()))?;
    limit(Resource::Nofile, FILE_LIMIT).map_err(step("limit open files"))?;
    drop_bounding_set().map_err(|error| step("drop capabilities")(error.into()))?;
    become_user(jail.user).map_err(|error| step("change the user")(error.into()))?;
    Ok(())
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    Ok(setrlimit(resource, limit)?)
}

fn drop_bounding_set() -> Result<(), Errno> {
    for capability in CapabilitySet::all().iter() {
        match capability_is_in_bounding_set(capability) {
            // The kernel does not know it.
            Err(Errno::INVAL) | Ok(false) => {}
            Err(error) => return Err(error),
            Ok(true) => remove_capability_from_bounding_set(capability)?,
        }
    }
    Ok(())
}

/// Changes to a user and the group of the same number, and drops all capabilities.
fn become_user(id: u32) -> Result<(), Errno> {
    let (user, group) = (
        rustix::process::Uid::from_raw(id),
        rustix::process::Gid::from_raw(id),
    );
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    // Changing the user may reset it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
