//! Handling of vCPU exits.

use std::{fmt, ops::ControlFlow, sync::Arc};

use error_chain::chain;
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::{
    bus::{Bus, StopVcpu},
    emulate,
    memory::GuestMemory,
};

/// Handles the exits of all vCPUs of a machine.
#[derive(Debug)]
pub(crate) struct ExitHandler {
    pub(crate) bus: Arc<Bus>,
    pub(crate) memory: GuestMemory,
    pub(crate) exit: ExitNotifier,
}

/// Callback that ends the machine and does not return: `None` if the guest powered off or reset, else the error.
#[derive(Clone)]
pub(crate) struct ExitNotifier(pub(crate) Arc<dyn Fn(Option<String>) + Send + Sync>);

/// Next action of the vCPU thread after an exit.
pub(crate) enum AfterExit {
    /// Enters the guest again.
    Reenter,
    /// Checks the run control, because the entry was interrupted.
    CheckControl,
    /// Stops until the machine is paused and resumed.
    Stop,
}

impl ExitHandler {
    /// Enters the guest once and handles its exit.
    pub(crate) fn run_once(&self, fd: &mut VcpuFd) -> AfterExit {
        match fd.run() {
            Ok(VcpuExit::MmioRead(at, data)) => self.bus.read(at, data),
            Ok(VcpuExit::MmioWrite(at, data)) => self.bus.write(at, data),
            Ok(VcpuExit::IoIn(port, data)) => self.bus.port_in(port, data),
            Ok(VcpuExit::IoOut(port, data)) => match self.bus.port_out(port, data) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(StopVcpu::Wait) => return AfterExit::Stop,
                ControlFlow::Break(StopVcpu::Reset) => (self.exit.0)(None),
            },
            Ok(VcpuExit::InternalError) => self.emulate(fd),
            Ok(VcpuExit::Shutdown) => (self.exit.0)(None),
            Ok(VcpuExit::Hlt | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_)) => {}
            Ok(VcpuExit::Intr) => return AfterExit::CheckControl,
            Ok(other) => {
                let exit = format!("{other:?}");
                self.fail(format!("unhandled VM exit: {exit}"));
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return AfterExit::CheckControl;
            }
            Err(error) => self.fail(format!("failed to run vCPU: {error}")),
        }
        AfterExit::Reenter
    }

    fn emulate(&self, fd: &VcpuFd) {
        if let Err(error) = emulate::emulate(fd, &self.memory) {
            self.fail(chain(&error).to_string());
        }
    }

    fn fail(&self, error: String) {
        (self.exit.0)(Some(error));
    }
}

impl fmt::Debug for ExitNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExitNotifier")
    }
}
