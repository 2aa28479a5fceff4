//! The agent over TCP, as its callers see it, on this machine and with real processes, files and terminals.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod codec;
mod disk;
mod files;
mod filesystem;
mod hostile;
mod input;
mod process;
mod pty;
mod range;
mod rig;
mod told;
mod watch;
