//! `catnap-vmm`: one microVM. It is started by Catnap, with a socket as its standard input.

#![forbid(unsafe_code)]

use std::{io, os::fd::AsFd, process::ExitCode};

use rustix::net::sockopt::socket_type;
use vmm::Monitor;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("CATNAP_LOG")
                .unwrap_or_else(|_| "warn".into()),
        )
        .init();
    if socket_type(io::stdin().as_fd()) != Ok(rustix::net::SocketType::SEQPACKET) {
        eprintln!("catnap-vmm is started by catnap, which gives it a socket as its standard input");
        return ExitCode::from(64);
    }
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("catnap-vmm: take the socket to the host: {error}");
            return ExitCode::FAILURE;
        }
    };
    match Monitor::new(socket).serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("catnap-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}
