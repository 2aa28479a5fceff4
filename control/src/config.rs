//! Settings of the control API.

use std::{path::PathBuf, time::Duration};

use pool_api::{NodeId, Secret};

/// Settings of the control API.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path of the database file, which is created if it does not exist.
    pub database: PathBuf,
    /// The key that clients send as `X-API-Key`.
    pub api_key: Secret,
    /// Name of the host that runs the sandboxes.
    pub node: NodeId,
    /// The longest limited lifetime of a sandbox, counted from its latest start.
    pub max_lifetime: Duration,
}

impl Config {
    /// Creates a configuration with a maximum lifetime of one day.
    pub fn new(database: PathBuf, api_key: Secret, node: NodeId) -> Self {
        Self {
            database,
            api_key,
            node,
            max_lifetime: Duration::from_secs(24 * 3600),
        }
    }
}
