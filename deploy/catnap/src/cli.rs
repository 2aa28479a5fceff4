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
    /// What was kept of sandboxes.
    #[command(subcommand)]
    Snapshot(Snapshot),
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where requests are taken, for the API and for sandboxes.
    #[arg(long, default_value = "127.0.0.1:3000")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) door: Door,
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

/// How the front door is reached, and what it shows of itself.
#[derive(Debug, Args)]
pub(crate) struct Door {
    /// Where requests are taken with TLS as well, HTTP/2 and HTTP/1.1 alike. By default nowhere.
    #[arg(long)]
    pub(crate) tls_listen: Option<SocketAddr>,
    /// The domain of this gateway: api.DOMAIN is the API, PORT-ID.DOMAIN a port of a sandbox. Names under localhost
    /// need no DNS of yours.
    #[arg(long, env = "CATNAP_DOMAIN", default_value = "e2b.localhost", value_parser = domain)]
    pub(crate) domain: String,
    /// The certificate chain for the domain and *.DOMAIN, in PEM form. Without it one is made for local use, and its
    /// authority's certificate kept in the data directory as tls/ca.pem.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_listen"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM form.
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_listen"])]
    pub(crate) tls_key: Option<PathBuf>,
    /// Where Prometheus is answered at /metrics, without a key: keep it to those who may know. By default nowhere.
    #[arg(long)]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Connections of all clients together. By default 20000, or what this process may have open.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) connection_limit: Option<u32>,
    /// Requests in one sandbox at once, streams and WebSockets among them.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sandbox_connection_limit: u32,
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
    /// Pause a sandbox.
    Pause(Pause),
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
    /// Show what a sandbox uses.
    Metrics(One),
    /// Keep a snapshot of a sandbox, which goes on, and print its id.
    Snapshot(Take),
    /// Put a sandbox back to a snapshot of it.
    Rollback(Rollback),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// List snapshots, the last one first.
    #[command(alias = "list")]
    Ls(Snapshots),
    /// Delete snapshots.
    #[command(alias = "delete")]
    Rm(Remove),
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
pub(crate) struct Pause {
    /// The sandbox.
    pub(crate) id: String,
    /// Keep its disk alone: it boots when it is woken, and requests do not wake it.
    #[arg(long)]
    pub(crate) no_memory: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Take {
    /// The sandbox.
    pub(crate) id: String,
    /// The name to keep it under; a snapshot of that name is replaced.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Keep its disk alone.
    #[arg(long)]
    pub(crate) no_memory: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The sandbox.
    pub(crate) id: String,
    /// The snapshot.
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    /// Only those taken of this sandbox.
    #[arg(long)]
    pub(crate) sandbox: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The snapshots, by id or name.
    #[arg(required = true)]
    pub(crate) snapshots: Vec<String>,
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
    /// Boot it from its disk, even if its memory was kept.
    #[arg(long)]
    pub(crate) no_memory: bool,
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

/// A name that can stand under `*.` in a certificate, in lower case.
fn domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let fits = text.len() <= 190 && text.split('.').all(label);
    if !fits || text.parse::<std::net::IpAddr>().is_ok() {
        return Err("must be a domain name, without a port".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

impl Cli {
    /// What is logged unless `RUST_LOG` says otherwise.
    pub(crate) fn default_log(&self) -> &'static str {
        match self.command {
            Command::Up(_) => "info,sqlx=warn,pingora_core=off,pingora_proxy=off",
            Command::Sandbox(_) | Command::Template(_) | Command::Snapshot(_) => "warn",
        }
    }
}

#[cfg(test)]
mod test {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_domain_is_a_name() {
        assert_eq!(domain("E2B.localhost"), Ok("e2b.localhost".to_owned()));
        for bad in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a_b",
            "127.0.0.1",
            "a:8443",
            "*.a",
            &"a.".repeat(99),
        ] {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_a_door() {
        for bad in [
            &["--tls-cert", "c"][..],
            &["--tls-key", "k", "--tls-listen", "127.0.0.1:1"],
            &["--tls-cert", "c", "--tls-key", "k"],
        ] {
            let args = ["catnap", "up"].iter().chain(bad);
            assert!(Cli::try_parse_from(args).is_err(), "{bad:?}");
        }
        let good = [
            "catnap",
            "up",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
            "--tls-listen",
            "[::1]:0",
        ];
        assert!(Cli::try_parse_from(good).is_ok());
    }

    #[test]
    fn pairs_have_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
