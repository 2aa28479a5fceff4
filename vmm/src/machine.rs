//! A machine: the parts put together.
//!
//! Built in the order that KVM wants: memory slots first (one made after an interrupt chip waits for a grace period),
//! then the interrupt chip, without a timer chip, then vCPUs, then interrupt descriptors. All of that happens before the
//! machine has a guest, so that starting one is only state.

mod interrupts;
mod parts;
mod vm;

pub(crate) use self::{
    parts::{BootParts, Devices, LoadParts, Machine, MachineError, nanos},
    vm::Vm,
};
