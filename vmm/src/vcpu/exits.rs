//! Why a vCPU left the guest, and what is done about it.

use std::{ops::ControlFlow, sync::Arc};

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::{
    bus::{Bus, Halt},
    emulate,
    memory::GuestMemory,
};

/// What is done at the exits of all vCPUs of a machine.
#[derive(Debug)]
pub(crate) struct Exits {
    pub(crate) bus: Arc<Bus>,
    pub(crate) memory: GuestMemory,
    /// Told when the guest is no more. It does not return.
    pub(crate) gone: Gone,
}

/// Ends the machine: with `None` when the guest itself asked for it, else with what went wrong.
#[derive(Clone)]
pub(crate) struct Gone(pub(crate) Arc<dyn Fn(Option<String>) + Send + Sync>);

/// What the thread does next.
pub(crate) enum Next {
    /// Enter again.
    Again,
    /// The entry was interrupted: look at the orders.
    Interrupted,
    /// Stand still until told to run again.
    Wait,
}

impl Exits {
    /// Enters the guest once and handles its exit.
    pub(crate) fn handle(&self, fd: &mut VcpuFd) -> Next {
        match fd.run() {
            Ok(VcpuExit::MmioRead(at, data)) => self.bus.read(at, data),
            Ok(VcpuExit::MmioWrite(at, data)) => self.bus.write(at, data),
            Ok(VcpuExit::IoIn(port, data)) => self.bus.port_in(port, data),
            Ok(VcpuExit::IoOut(port, data)) => match self.bus.port_out(port, data) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Halt::Wait) => return Next::Wait,
                ControlFlow::Break(Halt::Reset) => (self.gone.0)(None),
            },
            Ok(VcpuExit::InternalError) => self.emulate(fd),
            Ok(VcpuExit::Shutdown) => (self.gone.0)(None),
            Ok(VcpuExit::Hlt | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_)) => {}
            Ok(VcpuExit::Intr) => return Next::Interrupted,
            Ok(other) => {
                let what = format!("{other:?}");
                self.fail(format!(
                    "the guest left for a reason the monitor does not know: {what}"
                ));
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Next::Interrupted;
            }
            Err(error) => self.fail(format!("run vCPU: {error}")),
        }
        Next::Again
    }

    fn emulate(&self, fd: &VcpuFd) {
        if let Err(error) = emulate::emulate(fd, &self.memory) {
            self.fail(crate::chain(&error));
        }
    }

    fn fail(&self, why: String) {
        (self.gone.0)(Some(why));
    }
}

impl std::fmt::Debug for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gone")
    }
}
