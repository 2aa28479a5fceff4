//! Kernel command line.

use vmm_api::platform::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};

use super::vm::Vm;
use crate::bus::FIRST_VIRTIO_IRQ;

/// Prepends the parameters that this monitor's devices and this host need to the caller's command line.
pub(super) fn kernel_command_line(caller: &str, vm: &Vm, devices: usize) -> String {
    // A snapshot can carry kvm-clock; not every host virtualises the TSC. The keyboard controller is the only reset
    // mechanism that the monitor implements.
    // An idle guest should not wake up: by default compaction looks for work twice a second, and statistics are
    // collected every second.
    let mut line = String::from(
        "clocksource=kvm-clock reboot=k panic=-1 sysctl.vm.compaction_proactiveness=0 sysctl.vm.stat_interval=60",
    );
    for (index, irq) in (FIRST_VIRTIO_IRQ..).enumerate().take(devices) {
        let at = VIRTIO_MMIO_BASE + index as u64 * VIRTIO_MMIO_SIZE;
        line.push_str(&format!(" virtio_mmio.device=4K@{at:#x}:{irq}"));
    }
    // The caller's parameters come last because they may end with arguments for init.
    for parameters in [vm.host_cpu.command_line(), caller.trim()] {
        line.push(' ');
        line.push_str(parameters);
    }
    line
}
