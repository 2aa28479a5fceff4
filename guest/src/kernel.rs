//! The kernel settings that the agent changes, as a trait so that tests can record the calls.

use std::{fmt, io, time::SystemTime};

/// Access to the clock, the host name and the entropy pool.
pub trait Kernel: fmt::Debug {
    /// Reads the wall clock.
    fn now(&self) -> SystemTime;
    /// Sets the wall clock.
    fn set_clock(&self, to: SystemTime) -> io::Result<()>;
    /// Adds 1 to 512 random bytes to the kernel's pool, credits them as entropy, and reseeds the CRNG.
    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()>;
    /// Sets the host name.
    fn set_hostname(&self, name: &str) -> io::Result<()>;
}
