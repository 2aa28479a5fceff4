//! What a child does between fork and exec.

use std::{
    ffi::CString,
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::Command,
};

use nix::unistd::{Gid, Uid, chdir, setgid, setgroups, setsid, setuid};
use rustix::{
    process::{Resource, ioctl_tiocsctty, setrlimit},
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

/// Makes `command` run in a session of its own, in `dir`, and as `who` if that is said, who then must be allowed to enter
/// it. When the agent is not root it can only be itself. A directory with a zero byte in its name is an error.
pub(crate) fn isolate(
    command: &mut Command,
    who: Option<Credentials>,
    dir: &Path,
    terminal: Terminal,
) -> io::Result<()> {
    let who = who.filter(|_| Uid::effective().is_root());
    let files = limit::of_children();
    // Made here: the child may not allocate.
    let dir = CString::new(dir.as_os_str().as_bytes())?;
    let between = move || -> io::Result<()> {
        setsid()?;
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
        chdir(dir.as_c_str())?;
        Ok(())
    };
    // SAFETY: pre_exec asks that the closure only does what is allowed in a child of a process with threads: these seven
    // are plain system calls on memory made before the fork; nothing allocates, locks or unwinds.
    unsafe { command.pre_exec(between) };
    Ok(())
}
