//! All that is unsafe: what the kernel offers and no safe wrapper does.

mod entropy;
mod net;
mod spawn;

pub use self::entropy::LinuxKernel;
pub(crate) use self::{
    net::bring_up_loopback,
    spawn::{Credentials, isolate},
};
