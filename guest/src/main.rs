//! `catnap-guest`: runs the agent as pid 1 of a guest, or with `--listen ADDRESS` on a TCP address for development.

#![forbid(unsafe_code)]

use std::{net::SocketAddr, process::ExitCode};

use error_chain::chain;
use guest::{AgentState, Config, LinuxKernel, Peer, Reap, pid1, serve};
use tokio::{net::TcpListener, runtime, task::LocalSet};
use tracing::error;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    if std::process::id() == 1 {
        return pid1::run();
    }
    let mut arguments = std::env::args().skip(1);
    let address = match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (Some("--listen"), Some(address), None) => address.parse::<SocketAddr>().ok(),
        _ => None,
    };
    let Some(address) = address else {
        eprintln!(
            "usage: catnap-guest --listen 127.0.0.1:PORT (without arguments only as pid 1 of a guest)"
        );
        return ExitCode::from(2);
    };
    match listen(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%address, error = %chain(&error), "failed to serve");
            ExitCode::FAILURE
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        let state = AgentState::start(Config::default(), Box::new(LinuxKernel), Reap::Own)?;
        serve::tcp(state, listener, Peer::Host).await;
        Ok(())
    })
}
