//! `cargo xtask demo`: demonstrates a real gateway on this machine.
//!
//! [`scenario`] creates a sandbox, sends requests to it, waits for its idle pause, wakes it by a request and forks it.
//! [`gateway`] runs the gateway, which ends with the demo on every path.

mod api;
mod gateway;
mod scenario;

use std::{
    io::{Write as _, stdout},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{self, Sender},
    thread,
};

use anyhow::{Context, Result, bail};

use self::{
    api::Api,
    gateway::{Gateway, GatewayConfig, GatewayExit},
    scenario::Summary,
};
use crate::{build, cache::Cache, workspace::Workspace};

/// Options of the demo.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// End after the demonstration instead of running until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Pause the sandboxes at the end instead of killing them
    #[arg(long)]
    keep: bool,
    /// The listen address of the gateway
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

/// An event that the demo waits for.
enum Event {
    /// The scenario finished or failed.
    Finished(Result<Summary>),
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The gateway process exited.
    GatewayExited(GatewayExit),
}

/// Builds everything and runs the demonstration.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    check_listen_address(options.listen)?;
    build::run(workspace, &build::Options::default())?;
    let config = GatewayConfig {
        program: workspace.target.join("release/catnap"),
        data_dir: workspace.target.join("demo-data"),
        guest_dir: workspace.target.join("guest"),
        template_cache: Cache::find()?.subdirectory("templates")?,
        listen: options.listen,
    };
    let (sender, events) = mpsc::channel();
    let interrupted = sender.clone();
    ctrlc::set_handler(move || send(&interrupted, Event::Interrupted))
        .context("failed to install the handler for Ctrl-C")?;
    let exited = sender.clone();
    let mut gateway = Gateway::start(&config, move |exit| {
        send(&exited, Event::GatewayExited(exit));
    })?;

    let once = options.once;
    let keep = options.keep;
    let scenario_config = config.clone();
    thread::Builder::new()
        .name("scenario".to_owned())
        .spawn(move || {
            let result = scenario::run(&scenario_config, keep);
            send(&sender, Event::Finished(result));
        })
        .context("failed to start the scenario thread")?;
    let result = loop {
        match events
            .recv()
            .context("failed to receive an event of the demo")?
        {
            Event::Finished(Ok(summary)) => {
                stdout().write_all(summary.text(options.listen).as_bytes())?;
                if once {
                    break Ok(());
                }
                eprintln!("\nThe gateway is running. Press Ctrl-C to stop it.");
            }
            Event::Finished(Err(error)) => break Err(error),
            Event::Interrupted => {
                eprintln!();
                break Ok(());
            }
            Event::GatewayExited(exit) => {
                gateway.mark_exited();
                bail!("{}", exit.describe(&config.log()));
            }
        }
    };
    // A gateway that still boots its template has no sandboxes and does not serve requests yet.
    if !keep && Api::is_up(config.listen) {
        kill_sandboxes(&config);
    }
    gateway.stop(&events)?;
    result
}

/// Fails early, before the build, if the listen address is in use.
fn check_listen_address(listen: SocketAddr) -> Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) => {
            bail!("failed to listen on {listen} ({error}): choose another address with --listen")
        }
    }
}

/// Kills the sandboxes of the demo. On failure the next demo kills them.
fn kill_sandboxes(config: &GatewayConfig) {
    let killed = config
        .api_key()
        .and_then(|key| Api::new(config.listen, key).kill_demo_sandboxes());
    if let Err(error) = killed {
        eprintln!("failed to kill the sandboxes: {error:#}");
    }
}

fn send(events: &Sender<Event>, event: Event) {
    // The receiver is dropped when the demo ends.
    drop(events.send(event));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_address_in_use_suggests_the_listen_option() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let text = check_listen_address(address).unwrap_err().to_string();
        assert!(text.contains(&address.to_string()) && text.ends_with("--listen"));
        assert!(!text.contains('\n'));
        drop(taken);
        check_listen_address(address).unwrap();
    }
}
