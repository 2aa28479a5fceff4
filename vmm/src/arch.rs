//! x86-64: host CPU, CPUID, boot protocol and initial registers.

pub(crate) mod boot;
pub(crate) mod cpuid;
pub(crate) mod host_cpu;
pub(crate) mod mptable;
pub(crate) mod registers;
