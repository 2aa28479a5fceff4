//! The one binary people install.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    catnap::main()
}
