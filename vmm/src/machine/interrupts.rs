//! State of the interrupt controllers.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip,
};
use kvm_ioctls::VmFd;

const CHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

pub(super) fn save(vm: &VmFd) -> Result<Vec<kvm_irqchip>, kvm_ioctls::Error> {
    CHIPS
        .into_iter()
        .map(|chip_id| {
            let mut chip = kvm_irqchip {
                chip_id,
                ..kvm_irqchip::default()
            };
            vm.get_irqchip(&mut chip).map(|()| chip)
        })
        .collect()
}

/// Restores both PICs and the I/O APIC; `None` if `chips` are not exactly these.
pub(super) fn restore(vm: &VmFd, chips: &[kvm_irqchip]) -> Option<Result<(), kvm_ioctls::Error>> {
    let valid =
        chips.len() == CHIPS.len() && chips.iter().zip(CHIPS).all(|(chip, id)| chip.chip_id == id);
    valid.then(|| chips.iter().try_for_each(|chip| vm.set_irqchip(chip)))
}
