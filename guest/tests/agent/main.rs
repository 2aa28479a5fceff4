//! The agent over TCP, with real processes, files and terminals of the machine that runs the tests.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod codec;
mod cors;
mod disk;
mod download;
mod files;
mod filesystem;
mod http;
mod init;
mod input;
mod process;
mod pty;
mod rig;
mod untrusted_clients;
mod watch;
