//! Builds the guest kernel and root disks; runs the demo, the checks and the tests.
//!
//! Run `cargo xtask COMMAND` anywhere in the workspace. [`build`] builds every program, [`guest`] the kernel, root disk and
//! agent of guests. [`demo`] starts a gateway and demonstrates it. [`test`] runs every check and test; [`tidy`] is the
//! check for the rules of this code base. [`fuzz`] runs coverage-guided fuzzing.

#![forbid(unsafe_code)]

mod apt;
mod build;
mod cache;
mod clients;
mod demo;
mod fuzz;
mod guest;
mod step;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the gateway, the monitor, and the kernel, root disk and agent of guests
    Build(build::Options),
    /// Build everything, start a gateway, and demonstrate pause, wake and fork
    Demo(demo::Options),
    /// Run every check and test
    Test(test::Options),
    /// Run coverage-guided fuzzing of the parsers of untrusted input
    Fuzz(fuzz::Options),
    /// Check the rules of this code base that a machine can check
    Tidy,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match &arguments.command {
        Command::Build(options) => build::run(&workspace, options)?,
        Command::Demo(options) => demo::run(&workspace, options)?,
        Command::Test(options) => return test::run(&workspace, options),
        Command::Fuzz(options) => fuzz::run(&workspace, options)?,
        Command::Tidy => tidy::run(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
