//! Unsafe code: system calls that take addresses.

pub(crate) mod kick;
pub(crate) mod kvm;
pub(crate) mod mmap;
pub(crate) mod namespaces;
pub(crate) mod pagemap;
pub(crate) mod seqpacket;
pub(crate) mod uffd;
