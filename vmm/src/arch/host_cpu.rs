//! What kind of KVM this host has.

use std::{fs, path::Path};

/// What is peculiar to this host. Found out once, at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostCpu {
    /// Guest kernel mode is interpreted, by an emulator that lacks some instructions (the `kvm_pvm` module): the monitor
    /// carries those out, and the guest kernel is told so.
    pub(crate) emulated_cpl0: bool,
}

impl HostCpu {
    /// Looks at this host.
    pub(crate) fn detect() -> Self {
        let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
        let hardware = ["kvm_intel", "kvm_amd"].iter().any(|module| {
            // The module is there, and in use by somebody or at least initialised.
            loaded(module)
                && fs::metadata(Path::new("/sys/module").join(module).join("parameters")).is_ok()
        });
        Self {
            emulated_cpl0: loaded("kvm_pvm") && !hardware,
        }
    }

    /// What such a host needs on the guest kernel's command line.
    pub(crate) fn command_line(self) -> &'static str {
        if self.emulated_cpl0 {
            // Features whose instructions the emulator lacks are hidden from the kernel, so that it does not leave the
            // guest for each of them; user space sees the real processor anyway. The fast string instructions are done
            // a byte at a time. Each page fault costs a millisecond, so memory comes 64 KiB at a time.
            "catnap.emulated_cpl0 clearcpuid=smap,smep,fsgsbase,popcnt,cx16,xsaves,xsavec,xsaveopt,erms,fsrm \
             thp_anon=16K-64K:always rcupdate.rcu_cpu_stall_suppress=1"
        } else {
            ""
        }
    }
}
