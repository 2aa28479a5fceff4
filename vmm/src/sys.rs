//! Unsafe code: system calls that take addresses.

pub(crate) mod kick;
pub(crate) mod kvm;
pub(crate) mod mmap;
pub(crate) mod namespaces;
pub(crate) mod pagemap;
#[cfg(feature = "testing")]
pub mod raw;
pub(crate) mod seqpacket;
pub(crate) mod uffd;
