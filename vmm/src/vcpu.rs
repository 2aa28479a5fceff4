//! A vCPU: a thread that runs it, and its state in and out of a file.

mod exits;
mod run;
mod state;

pub(crate) use self::{
    exits::{Exits, Gone},
    run::VcpuThread,
    state::{StateError, VcpuState},
};
