//! How control is set up.

use std::{path::PathBuf, time::Duration};

use pool_api::{NodeId, Secret};

/// How control is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database file. It is made when it is not there.
    pub database: PathBuf,
    /// What callers must send as `X-API-Key`.
    pub api_key: Secret,
    /// The name of the host that sandboxes are put on.
    pub node: NodeId,
    /// The longest time a sandbox may be given at once.
    pub longest: Duration,
}

impl Config {
    /// A day for each sandbox at most.
    pub fn new(database: PathBuf, api_key: Secret, node: NodeId) -> Self {
        Self {
            database,
            api_key,
            node,
            longest: Duration::from_secs(24 * 3600),
        }
    }
}
