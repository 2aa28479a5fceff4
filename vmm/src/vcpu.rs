//! vCPU: its thread, its exits and its state in a machine image.

mod exits;
mod state;
mod thread;

pub(crate) use self::{
    exits::{ExitHandler, ExitNotifier},
    state::{StateError, VcpuState},
    thread::VcpuThread,
};
