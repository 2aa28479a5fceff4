//! Arguments of `catnap snapshot`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List snapshots, newest first.
    #[command(alias = "list")]
    Ls(ListSnapshotsArgs),
    /// Delete snapshots.
    #[command(alias = "delete")]
    Rm(DeleteSnapshotArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListSnapshotsArgs {
    /// List only snapshots of this sandbox.
    #[arg(long)]
    pub(crate) sandbox: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteSnapshotArgs {
    /// IDs or names of the snapshots.
    #[arg(required = true)]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
