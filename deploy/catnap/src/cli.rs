//! What can be typed.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// A gateway whose front door wakes microVMs while it holds a request, and its command line.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 4 not found, 5 not permitted, 6 conflict, 7 unavailable.
/// `sandbox exec` exits as the command did, with 128 and the signal's number when one ended it.
#[derive(Debug, Parser)]
#[command(name = "catnap", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway: edge, pool and control on this machine.
    Up(Up),
    /// Make and use sandboxes.
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// What sandboxes are made from.
    #[command(subcommand)]
    Template(Template),
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where requests are taken, for the API and for sandboxes.
    #[arg(long, default_value = "127.0.0.1:3000")]
    pub(crate) listen: SocketAddr,
    /// Where everything is kept.
    #[arg(long, env = "CATNAP_DATA_DIR", default_value = "catnap-data")]
    pub(crate) data_dir: PathBuf,
    /// The key callers must send. Without it one is made, kept in the data directory, and printed.
    #[arg(long, env = "CATNAP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// The folder with the guest's kernel (vmlinux) and root disk (base.ext4). By default `guest` beside this program's
    /// folder, or /usr/lib/catnap/guest.
    #[arg(long, env = "CATNAP_GUEST_DIR")]
    pub(crate) guest_dir: Option<PathBuf>,
    /// The monitor. By default `catnap-vmm` beside this program.
    #[arg(long, env = "CATNAP_VMM")]
    pub(crate) vmm: Option<PathBuf>,
    /// How the memory of woken machines arrives; force one to measure it.
    #[arg(long, value_enum, default_value_t = Memory::Auto)]
    pub(crate) memory: Memory,
    /// Memory of all running machines together, in MiB. By default three quarters of this machine's.
    #[arg(long)]
    pub(crate) memory_limit: Option<u64>,
    /// Running machines at most.
    #[arg(long, default_value_t = 1000)]
    pub(crate) machine_limit: usize,
}

/// How memory arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Memory {
    /// Shared from RAM where it is there, else page by page.
    Auto,
    /// Always shared from RAM, and brought there first.
    Cow,
    /// Always page by page.
    Paged,
}

/// Where the gateway is, and how to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    /// The gateway.
    #[arg(long, env = "CATNAP_URL", default_value = "http://127.0.0.1:3000")]
    pub(crate) url: String,
    /// The API key; `E2B_API_KEY` does as well.
    #[arg(long, env = "CATNAP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sandbox {
    /// Make a sandbox and print its id.
    Create(Create),
    /// List sandboxes.
    #[command(alias = "list")]
    Ls(List),
    /// Show one sandbox.
    Info(One),
    /// Pause a sandbox into a snapshot.
    Pause(One),
    /// Wake a paused sandbox.
    Resume(Resume),
    /// Fork a running sandbox.
    Fork(Fork),
    /// End sandboxes.
    Kill(Many),
    /// Run a command in a sandbox.
    Exec(Exec),
    /// Print a sandbox's console.
    Logs(Logs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// List templates.
    #[command(alias = "list")]
    Ls(Remote),
    /// Build a template from the host's kernel and root disk.
    Build(Build),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The template.
    #[arg(default_value = "base")]
    pub(crate) template: String,
    /// Seconds it is given.
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout: u64,
    /// Pause when they are over, rather than kill.
    #[arg(long)]
    pub(crate) auto_pause: bool,
    /// Let requests wake it.
    #[arg(long)]
    pub(crate) auto_resume: bool,
    /// Seconds of no use after which it is paused.
    #[arg(long)]
    pub(crate) idle_timeout: Option<u64>,
    /// A label; may be given many times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) metadata: Vec<(String, String)>,
    /// An environment variable; may be given many times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those in this state: running, paused.
    #[arg(long)]
    pub(crate) state: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// The sandbox.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Many {
    /// The sandboxes.
    #[arg(required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The sandbox.
    pub(crate) id: String,
    /// Seconds it is given.
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Fork {
    /// The sandbox.
    pub(crate) id: String,
    /// How many.
    #[arg(long, short = 'n', default_value_t = 1)]
    pub(crate) count: u32,
    /// Seconds each is given.
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The sandbox.
    pub(crate) id: String,
    /// Where to run it.
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// An environment variable; may be given many times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The sandbox.
    pub(crate) id: String,
    /// Lines at most, the last ones.
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The template.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

impl Cli {
    /// What is logged unless `RUST_LOG` says otherwise.
    pub(crate) fn default_log(&self) -> &'static str {
        match self.command {
            Command::Up(_) => "info,sqlx=warn,pingora_core=warn,pingora_proxy=warn",
            Command::Sandbox(_) | Command::Template(_) => "warn",
        }
    }
}

#[cfg(test)]
mod test {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pairs_have_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
