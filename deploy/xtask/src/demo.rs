//! `cargo xtask demo`: the whole path, on this machine, before a person's eyes.
//!
//! A gateway is started, a sandbox made, called, left to fall asleep, woken by a request and forked; [`story`] is that.
//! This file is what is around it: whatever happens, [`gateway`] ends with the demo.

mod api;
mod gateway;
mod story;

use std::{
    io::{Write as _, stdout},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{self, Sender},
    thread,
};

use anyhow::{Context, Result, bail};

use self::{
    api::Api,
    gateway::{Ended, Gateway, Place},
    story::Told,
};
use crate::{build, cache::Cache, workspace::Workspace};

/// How the demo goes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// End when everything was shown, rather than stay up until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Keep the sandboxes for the next time, paused, rather than kill them at the end
    #[arg(long)]
    keep: bool,
    /// Where the gateway listens
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

/// What the demo waits for.
enum Event {
    /// The story came to its end, or to a bad one.
    Told(Result<Told>),
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// The gateway is no more.
    Ended(Ended),
}

/// Builds what is missing and shows it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    check_free(options.listen)?;
    build::run(workspace, &build::Options::default())?;
    let place = Place {
        program: workspace.target.join("release/catnap"),
        data_dir: workspace.target.join("demo-data"),
        guest_dir: workspace.target.join("guest"),
        template_cache: Cache::find()?.folder("templates")?,
        listen: options.listen,
    };
    let (events, happened) = mpsc::channel();
    let interrupted = events.clone();
    ctrlc::set_handler(move || tell(&interrupted, Event::Interrupted))
        .context("watch for Ctrl-C")?;
    let ended = events.clone();
    let mut gateway = Gateway::start(&place, move |how| tell(&ended, Event::Ended(how)))?;

    let once = options.once;
    let keep = options.keep;
    let telling = place.clone();
    thread::Builder::new()
        .name("story".to_owned())
        .spawn(move || {
            let told = story::tell(&telling, keep);
            tell(&events, Event::Told(told));
        })
        .context("start the demo's thread")?;
    let shown = loop {
        match happened.recv().context("wait for the demo")? {
            Event::Told(Ok(told)) => {
                stdout().write_all(told.text(options.listen).as_bytes())?;
                if once {
                    break Ok(());
                }
                eprintln!("\nThe gateway stays up; Ctrl-C ends it.");
            }
            Event::Told(Err(error)) => break Err(error),
            Event::Interrupted => {
                eprintln!();
                break Ok(());
            }
            Event::Ended(how) => {
                gateway.is_gone();
                bail!("{}", how.say(&place.log()));
            }
        }
    };
    // One that is still booting its template has nothing to kill, and would not answer.
    if !keep && Api::is_up(place.listen) {
        clean_up(&place);
    }
    gateway.stop(&happened)?;
    shown
}

/// Says in one sentence that a port is taken, before minutes are spent on building.
fn check_free(listen: SocketAddr) -> Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) => {
            bail!("{listen} cannot be listened on ({error}): choose another with --listen")
        }
    }
}

/// Kills what the demo made. That it cannot be is not worth failing for: the next demo does it first of all.
fn clean_up(place: &Place) {
    let killed = place
        .api_key()
        .and_then(|key| Api::new(place.listen, key).kill_earlier());
    if let Err(error) = killed {
        eprintln!("the sandboxes were not killed: {error:#}");
    }
}

fn tell(events: &Sender<Event>, event: Event) {
    // Nobody listens once the demo is over.
    drop(events.send(event));
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_port_in_use_is_one_sentence() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let text = check_free(address).unwrap_err().to_string();
        assert!(text.starts_with(&address.to_string()) && text.ends_with("--listen"));
        assert!(!text.contains('\n'));
        drop(taken);
        check_free(address).unwrap();
    }
}
