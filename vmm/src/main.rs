//! `catnap-vmm`: the monitor process of one microVM. Catnap starts it with a socket as standard input.

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
                // A guest can make the queue library log without end.
                .unwrap_or_else(|_| "warn,virtio_queue=off".into()),
        )
        .init();
    abort_on_panic();
    if let Err(error) = vmm::harden() {
        eprintln!("catnap-vmm: failed to give up privileges: {error}");
        return ExitCode::FAILURE;
    }
    if socket_type(io::stdin().as_fd()) != Ok(rustix::net::SocketType::SEQPACKET) {
        eprintln!(
            "catnap-vmm: standard input is not the host's socket; run catnap, which starts this program"
        );
        return ExitCode::from(64);
    }
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("catnap-vmm: failed to duplicate the host's socket: {error}");
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

/// Ends the process at a panic in any thread: a machine without one of its threads must not run on.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
