//! The limits of open files for the agent and for its children.

use std::{io, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The agent's limit, for all connections and the pipes of processes.
const AGENT_LIMIT: u64 = 16_384;
/// The hard limit, to which children can raise their own.
const HARD_LIMIT: u64 = 1 << 20;

/// The limit before it was raised, which children inherit.
static INITIAL_LIMIT: OnceLock<Option<u64>> = OnceLock::new();

/// Raises the agent's limit above the kernel's default.
pub(crate) fn raise_limit() -> io::Result<()> {
    let initial = getrlimit(Resource::Nofile).current;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(AGENT_LIMIT),
            maximum: Some(HARD_LIMIT),
        },
    )?;
    INITIAL_LIMIT.get_or_init(|| initial);
    Ok(())
}

/// The limit that a child must set; `None` if the agent's limit was not raised.
pub(super) fn child_limit() -> Option<Rlimit> {
    let initial = INITIAL_LIMIT.get()?;
    Some(Rlimit {
        current: *initial,
        maximum: Some(HARD_LIMIT),
    })
}
