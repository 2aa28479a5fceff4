//! Configures children between fork and exec.

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

use super::open_files;

/// The user and the groups of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// User id.
    pub(crate) uid: Uid,
    /// Group id.
    pub(crate) gid: Gid,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
}

/// The controlling terminal of a child's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControllingTerminal {
    None,
    /// The terminal at standard input.
    Stdin,
}

/// Makes `command` run in a new session, in `dir` and with `credentials`, which must permit entering `dir`. Without root
/// privileges `credentials` are ignored. Fails if `dir` contains a zero byte.
pub(crate) fn configure_child(
    command: &mut Command,
    credentials: Option<Credentials>,
    dir: &Path,
    terminal: ControllingTerminal,
) -> io::Result<()> {
    let credentials = credentials.filter(|_| Uid::effective().is_root());
    let open_files = open_files::child_limit();
    // Allocated before the fork, because the child must not allocate.
    let dir = CString::new(dir.as_os_str().as_bytes())?;
    let pre_exec = move || -> io::Result<()> {
        setsid()?;
        if let Some(limit) = open_files {
            setrlimit(Resource::Nofile, limit)?;
        }
        if terminal == ControllingTerminal::Stdin {
            ioctl_tiocsctty(stdio::stdin())?;
        }
        if let Some(credentials) = &credentials {
            setgroups(&credentials.groups)?;
            setgid(credentials.gid)?;
            setuid(credentials.uid)?;
        }
        chdir(dir.as_c_str())?;
        Ok(())
    };
    // SAFETY: pre_exec requires that the closure is async-signal-safe. These seven are plain system calls on memory that
    // was allocated before the fork; none of them allocates, locks or unwinds.
    unsafe { command.pre_exec(pre_exec) };
    Ok(())
}
