//! The Connect services of the agent: they map requests to operations on processes and files.

pub(crate) mod filesystem;
pub(crate) mod process;
