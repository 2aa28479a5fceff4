//! All that is unsafe: what the kernel offers and no safe wrapper does.

mod entropy;
mod freeze;
mod limit;
mod net;
mod ready;
mod spawn;

pub use self::entropy::LinuxKernel;
pub(crate) use self::{
    freeze::{freeze, thaw},
    limit::raise_open_files,
    net::bring_up_loopback,
    ready::ready,
    spawn::{Credentials, Terminal, isolate},
};
