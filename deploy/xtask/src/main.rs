//! Builds the guest kernel and root disks; runs the demo and the checks.
//!
//! `cargo xtask COMMAND`, from anywhere in the workspace. [`build`] makes everything that runs, [`guest`] what goes into
//! guests; [`demo`] shows it to a person; [`test`] runs every check, of which [`tidy`] is the one for the rules of this
//! code base that a machine can check. [`fuzz`] looks for what no test thought of.

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
    /// Build the gateway, the monitor, and what runs in guests
    Build(build::Options),
    /// Build everything, then start the gateway and show what it does
    Demo(demo::Options),
    /// Run every check and test
    Test(test::Options),
    /// Look for input that what reads strangers' bytes does not survive
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
