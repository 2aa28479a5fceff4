//! System calls without a safe wrapper. The only module with unsafe code.

mod async_fd;
mod freeze;
mod kernel;
mod net;
mod open_files;
mod spawn;

pub use self::kernel::LinuxKernel;
pub(crate) use self::{
    async_fd::async_fd,
    freeze::{freeze, thaw},
    net::bring_up_loopback,
    open_files::raise_limit,
    spawn::{ControllingTerminal, Credentials, configure_child},
};
