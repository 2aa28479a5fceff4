//! The command line grammar.

mod client;
mod ledger;
mod sandbox;
mod snapshot;
mod template;
mod up;

use clap::{Parser, Subcommand};

pub(crate) use self::{
    client::ClientArgs,
    ledger::{DiscardArgs, LedgerCommand, RebuildArgs},
    sandbox::{
        CreateArgs, ExecArgs, ForkArgs, KillArgs, ListArgs, LogsArgs, PauseArgs, ResumeArgs,
        RollbackArgs, SandboxArg, SandboxCommand, SnapshotArgs,
    },
    snapshot::{DeleteSnapshotArgs, ListSnapshotsArgs, SnapshotCommand},
    template::{BuildArgs, TemplateCommand},
    up::{ListenArgs, Memory, UpArgs},
};

/// Gateway for microVM sandboxes that sleep when idle and wake on request.
///
/// Exit codes: 0 success, 1 failure, 2 usage error, 4 not found, 5 unauthorized, 6 conflict, 7 unavailable.
/// `sandbox exec` exits with the code of the command, or with 128 plus the signal number if a signal killed it.
#[derive(Debug, Parser)]
#[command(name = "catnap", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway on this machine.
    Up(UpArgs),
    /// Create and use sandboxes.
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Build and list the templates that sandboxes are created from.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// List and delete snapshots of sandboxes.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Take back what the ledger does not know of the host.
    #[command(subcommand)]
    Ledger(LedgerCommand),
}

impl Cli {
    /// Returns the log filter for an unset `RUST_LOG`.
    pub(crate) fn default_log_filter(&self) -> &'static str {
        match self.command {
            Command::Up(_) => "info,sqlx=warn,pingora_core=off,pingora_proxy=off",
            Command::Sandbox(_)
            | Command::Template(_)
            | Command::Snapshot(_)
            | Command::Ledger(_) => "warn",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
