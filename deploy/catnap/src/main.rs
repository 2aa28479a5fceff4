//! The `catnap` program: the gateway and its command line.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    catnap::main()
}
