//! How many descriptors the agent may have open, and how many its children.

use std::{io, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What all the doors and the pipes of processes need.
const AGENT: u64 = 16_384;
/// What a child can raise its own limit to.
const MOST: u64 = 1 << 20;

/// The limit before it was raised, which children are started with.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Lets the agent have more descriptors open than the kernel gives pid 1.
pub(crate) fn raise_open_files() -> io::Result<()> {
    let before = getrlimit(Resource::Nofile).current;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(AGENT),
            maximum: Some(MOST),
        },
    )?;
    BEFORE.get_or_init(|| before);
    Ok(())
}

/// What a child must set for itself; `None` when the agent's is the one it was given.
pub(super) fn of_children() -> Option<Rlimit> {
    let before = BEFORE.get()?;
    Some(Rlimit {
        current: *before,
        maximum: Some(MOST),
    })
}
