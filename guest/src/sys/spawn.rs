//! What a child does between fork and exec.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};

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

/// Makes `command` run as `who` in a session of its own. When the agent is not root it can only be itself.
pub(crate) fn become_user(command: &mut Command, who: Credentials) {
    let drop_rights = Uid::effective().is_root();
    let between = move || -> io::Result<()> {
        setsid()?;
        if drop_rights {
            setgroups(&who.groups)?;
            setgid(who.gid)?;
            setuid(who.uid)?;
        }
        Ok(())
    };
    // SAFETY: pre_exec asks that the closure only does what is allowed in a child of a process with threads: these four
    // are plain system calls on memory made before the fork; nothing allocates, locks or unwinds.
    unsafe { command.pre_exec(between) };
}
