//! Settings that the host assigns to the guest with `POST /init`.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use guest_api::Token;

/// Settings of the latest init requests.
#[derive(Debug, Default)]
pub(crate) struct GuestConfig {
    /// Environment variables of every process started from now on.
    pub(crate) env: BTreeMap<String, String>,
    /// The token that callers must present; empty means that no token is required.
    pub(crate) token: Token,
    pub(crate) default_user: Option<String>,
    pub(crate) default_workdir: Option<PathBuf>,
    pub(crate) sandbox_id: Option<String>,
    pub(crate) template_id: Option<String>,
    /// The latest timestamp received from the host.
    pub(crate) last_host_time: Option<SystemTime>,
}
