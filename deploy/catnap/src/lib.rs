//! The one binary people install: the gateway and its command line.
//!
//! [`main`] is all of it. [`run`] is the gateway alone, around a host that is given, for the rigs of tests.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod door;
mod exec;
mod host;
mod key;
mod output;
mod up;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

pub use self::up::{Addresses, Config, run};

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(cli.default_log()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("catnap: a TLS provider was installed before");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("catnap: start the runtime: {error}");
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
