//! Arguments of `catnap sandbox`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Create a sandbox and print its ID.
    Create(CreateArgs),
    /// List sandboxes.
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Show a sandbox.
    Info(SandboxArg),
    /// Pause a running sandbox.
    Pause(PauseArgs),
    /// Resume a paused sandbox.
    Resume(ResumeArgs),
    /// Fork a running sandbox and print the IDs of the forks.
    Fork(ForkArgs),
    /// Kill sandboxes.
    Kill(KillArgs),
    /// Run a command in a sandbox.
    Exec(ExecArgs),
    /// Print the console of a sandbox.
    Logs(LogsArgs),
    /// Show the CPU, memory and disk usage of a sandbox.
    Metrics(SandboxArg),
    /// Snapshot a sandbox without stopping it, and print the ID of the snapshot.
    Snapshot(SnapshotArgs),
    /// Roll a sandbox back to one of its snapshots.
    Rollback(RollbackArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Template of the sandbox.
    #[arg(default_value = "base")]
    pub(crate) template: String,
    /// Lifetime in seconds.
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout: u64,
    /// Pause instead of killing when the lifetime expires.
    #[arg(long)]
    pub(crate) auto_pause: bool,
    /// Let requests wake the sandbox.
    #[arg(long)]
    pub(crate) auto_resume: bool,
    /// Pause the sandbox after this many seconds without requests.
    #[arg(long)]
    pub(crate) idle_timeout: Option<u64>,
    /// Label of the sandbox. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// Environment variable of the sandbox. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    pub(crate) env: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// List only sandboxes in this state: running or paused.
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// List the sandboxes and snapshots of the host that the ledger does not know.
    #[arg(long, conflicts_with = "state")]
    pub(crate) quarantined: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SandboxArg {
    /// ID of the sandbox.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// ID of the sandbox.
    pub(crate) id: String,
    /// Save only the disk. The sandbox boots when it is resumed, and requests do not wake it.
    #[arg(long)]
    pub(crate) no_memory: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// ID of the sandbox.
    pub(crate) id: String,
    /// Name of the snapshot. Replaces the snapshot of that name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Save only the disk.
    #[arg(long)]
    pub(crate) no_memory: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// ID of the sandbox.
    pub(crate) id: String,
    /// ID or name of the snapshot.
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// IDs of the sandboxes.
    #[arg(required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// ID of the sandbox.
    pub(crate) id: String,
    /// Lifetime in seconds.
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout: u64,
    /// Discard saved memory and boot from the disk.
    #[arg(long)]
    pub(crate) no_memory: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// ID of the sandbox.
    pub(crate) id: String,
    /// Number of forks.
    #[arg(long, short = 'n', default_value_t = 1)]
    pub(crate) count: u32,
    /// Lifetime of each fork in seconds.
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// ID of the sandbox.
    pub(crate) id: String,
    /// Working directory of the command.
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// Environment variable of the command. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    pub(crate) env: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Command and its arguments, after `--`.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// ID of the sandbox.
    pub(crate) id: String,
    /// Maximum number of lines. Prints the last ones.
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Parses `NAME=VALUE`.
fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_value_requires_a_name() {
        let parsed = ("a".to_owned(), "b=c".to_owned());
        assert_eq!(name_value("a=b=c"), Ok(parsed));
        assert!(name_value("a").is_err() && name_value("=b").is_err());
    }
}
