//! Arguments of `catnap ledger`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Take sandboxes and snapshots of the host that the ledger does not know back from quarantine.
    Rebuild(RebuildArgs),
    /// Remove sandboxes and snapshots in quarantine for good.
    Discard(DiscardArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// IDs of the objects. By default everything in quarantine.
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiscardArgs {
    /// IDs of the objects.
    #[arg(required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
