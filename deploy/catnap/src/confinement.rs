//! Privileges and system calls that the gateway drops at its start.
//!
//! The gateway makes the jails of monitors, so it keeps what that takes: `SYS_ADMIN` above all. The filter refuses the
//! calls that neither gateway nor monitors need; a monitor inherits it, and then takes a much shorter one.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    process::geteuid,
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Capabilities of the gateway and of monitors that enter their jails.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    // Monitors have other users.
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::NET_BIND_SERVICE)
    // A data directory may belong to another user than root.
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER);

/// System calls that fail with `EPERM`.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_uselib,
    libc::SYS_vhangup,
];

/// Drops the privileges and system calls, for this thread and those that it starts. Call it before there are others.
pub(crate) fn confine() -> Result<()> {
    set_no_new_privs(true).context("failed to give up new privileges")?;
    if geteuid().is_root() {
        drop_capabilities().context("failed to drop capabilities")?;
    }
    let rules: BTreeMap<i64, Vec<_>> = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .context("failed to compile the filter of system calls")?;
    seccompiler::apply_filter(&filter).context("failed to apply the filter of system calls")
}

fn drop_capabilities() -> Result<(), Errno> {
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match capability_is_in_bounding_set(capability) {
            // The kernel does not know it.
            Err(Errno::INVAL) | Ok(false) => {}
            Err(error) => return Err(error),
            Ok(true) => remove_capability_from_bounding_set(capability)?,
        }
    }
    let held = rustix::thread::capabilities(None)?;
    let sets = CapabilitySets {
        effective: held.effective.intersection(KEPT),
        permitted: held.permitted.intersection(KEPT),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}
