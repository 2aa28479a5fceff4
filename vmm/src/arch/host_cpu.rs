//! Properties of the host's KVM.

use std::{fs, path::Path};

/// Properties of the host's KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostCpu {
    /// KVM interprets guest kernel mode (the `kvm_pvm` module), with an emulator that lacks some instructions. The
    /// monitor emulates those, and the guest kernel's command line names the fact.
    pub(crate) emulated_cpl0: bool,
}

impl HostCpu {
    /// Detects the properties from the loaded kernel modules.
    pub(crate) fn detect() -> Self {
        let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
        let hardware = ["kvm_intel", "kvm_amd"].iter().any(|module| {
            // The module is loaded and initialised.
            loaded(module)
                && fs::metadata(Path::new("/sys/module").join(module).join("parameters")).is_ok()
        });
        Self {
            emulated_cpl0: loaded("kvm_pvm") && !hardware,
        }
    }

    /// Returns the kernel parameters that a guest on this host needs.
    pub(crate) fn command_line(self) -> &'static str {
        if self.emulated_cpl0 {
            // The kernel does not use features whose instructions the emulator lacks, because each would exit to the
            // monitor; user mode sees the real processor anyway. The emulator executes fast string instructions byte by
            // byte. A page fault costs a millisecond, so the kernel faults 64 KiB at once.
            // RCU looks for quiescent states once a tick of a busy guest, which is 8 jiffies, and updaters do not wait for it.
            "catnap.emulated_cpl0 clearcpuid=smap,smep,fsgsbase,popcnt,cx16,xsaves,xsavec,xsaveopt,erms,fsrm \
             thp_anon=16K-64K:always rcupdate.rcu_cpu_stall_suppress=1 \
             rcutree.jiffies_till_first_fqs=8 rcutree.jiffies_till_next_fqs=8 rcupdate.rcu_expedited=1"
        } else {
            ""
        }
    }
}
