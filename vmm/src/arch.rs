//! What an x86-64 guest finds when it begins.

pub(crate) mod boot;
pub(crate) mod cpuid;
pub(crate) mod host_cpu;
pub(crate) mod mptable;
pub(crate) mod registers;
