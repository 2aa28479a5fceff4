//! All that the compiler cannot check: the calls to the kernel that deal in addresses.

pub(crate) mod kick;
pub(crate) mod kvm;
pub(crate) mod mmap;
pub(crate) mod pagemap;
pub(crate) mod seqpacket;
pub(crate) mod uffd;
