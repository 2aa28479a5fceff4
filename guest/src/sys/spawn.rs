//! What a child does between fork and exec.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};
use rustix::{
    process::{Resource, getpriority_process, ioctl_tiocsctty, setpriority_process, setrlimit},
    stdio,
};

use super::limit;

/// Whose rights a child has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// User id.
    pub(crate) uid: Uid,
    /// Group id.
    pub(crate) gid: Gid,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
}

/// Which terminal a child's session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// None.
    None,
    /// The one that is its standard input.
    Stdin,
}

/// Makes `command` run in a session of its own, and as `who` if that is said; never before others, as the agent may. When
/// the agent is not root it can only be itself.
pub(crate) fn isolate(command: &mut Command, who: Option<Credentials>, terminal: Terminal) {
    let who = who.filter(|_| Uid::effective().is_root());
    let files = limit::of_children();
    let favoured = getpriority_process(None).is_ok_and(|nice| nice < 0);
    let between = move || -> io::Result<()> {
        setsid()?;
        if favoured {
            setpriority_process(None, 0)?;
        }
        if let Some(files) = files {
            setrlimit(Resource::Nofile, files)?;
        }
        if terminal == Terminal::Stdin {
            ioctl_tiocsctty(stdio::stdin())?;
        }
        if let Some(who) = &who {
            setgroups(&who.groups)?;
            setgid(who.gid)?;
            setuid(who.uid)?;
        }
        Ok(())
    };
    // SAFETY: pre_exec asks that the closure only does what is allowed in a child of a process with threads: these seven
    // are plain system calls on memory made before the fork; nothing allocates, locks or unwinds.
    unsafe { command.pre_exec(between) };
}
