//! The gateway and its command line, in one program.
//!
//! [`main`] is the program. [`run`] is the gateway around a given host; tests give it a fake one. Begin with `cli`, the
//! grammar, and `commands`, which carries commands out through `client`. `catnap up` is `up`: it opens the host
//! (`local_node`) and the listeners (`listeners`), and runs the `gateway`.

#![forbid(unsafe_code)]

mod api_key;
mod cli;
mod client;
mod commands;
mod confinement;
mod gateway;
mod listeners;
mod local_node;
mod output;
mod up;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

pub use self::{
    gateway::{Addresses, Config, run},
    local_node::KERNEL_COMMAND_LINE,
};

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(cli.default_log_filter()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("catnap: failed to install the TLS provider: another one is installed");
        return ExitCode::FAILURE;
    }
    if let cli::Command::Up(_) = cli.command
        && let Err(error) = confinement::confine()
    {
        eprintln!("catnap: {error:#}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("catnap: failed to start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("catnap: {error:#}");
            ExitCode::from(client::exit_code(&error))
        }
    }
}
