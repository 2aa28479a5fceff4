//! Arguments of `catnap up`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Plain HTTP address for the API and for sandboxes.
    #[arg(long, default_value = "127.0.0.1:3000")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) listeners: ListenArgs,
    /// Directory for sandboxes, snapshots, the database and generated keys.
    #[arg(long, env = "CATNAP_DATA_DIR", default_value = "catnap-data")]
    pub(crate) data_dir: PathBuf,
    /// API key that callers must send. By default the gateway generates one, stores it in the data directory and prints
    /// it.
    #[arg(long, env = "CATNAP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Directory with the guest kernel (vmlinux) and root disk (base.ext4). By default `guest` beside the directory of
    /// this program, or /usr/lib/catnap/guest.
    #[arg(long, env = "CATNAP_GUEST_DIR")]
    pub(crate) guest_dir: Option<PathBuf>,
    /// Path of the virtual machine monitor. By default `catnap-vmm` beside this program.
    #[arg(long, env = "CATNAP_VMM")]
    pub(crate) vmm: Option<PathBuf>,
    /// How restored machines get their memory. Set it only for measurements.
    #[arg(long, value_enum, default_value_t = Memory::Auto)]
    pub(crate) memory: Memory,
    /// Memory limit of all running machines together, in MiB. By default three quarters of the host's memory.
    #[arg(long)]
    pub(crate) memory_limit: Option<u64>,
    /// Maximum number of running machines.
    #[arg(long, default_value_t = 1000)]
    pub(crate) machine_limit: usize,
    /// Share of a paused sandbox's memory that others may use, from 0 to 1. At 0 a paused sandbox keeps its memory, and no
    /// wake is refused for lack of it.
    #[arg(long, default_value_t = 1.0, value_name = "RATIO")]
    pub(crate) paused_resource_release_ratio: f64,
    /// Free space to keep on the data directory's filesystem for pauses, in MiB: no sandbox is created below it.
    #[arg(long, default_value_t = 1024)]
    pub(crate) disk_reserve: u64,
    /// First of the 65536 user ids that monitors run as, one each. No other program may use them.
    #[arg(long, default_value_t = vmm_api::FIRST_USER)]
    pub(crate) first_monitor_user: u32,
    /// Run monitors with the privileges of this user rather than in jails. For development: a guest that takes over its
    /// monitor then has this user's files.
    #[arg(long)]
    pub(crate) no_jail: bool,
}

/// Arguments of the gateway's listeners.
#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// TLS address for the API and for sandboxes, HTTP/2 and HTTP/1.1. Off by default.
    #[arg(long)]
    pub(crate) tls_listen: Option<SocketAddr>,
    /// Domain of the gateway: api.DOMAIN is the API, PORT-ID.DOMAIN is a port of a sandbox. Names under localhost need
    /// no DNS records.
    #[arg(long, env = "CATNAP_DOMAIN", default_value = "e2b.localhost", value_parser = domain)]
    pub(crate) domain: String,
    /// Certificate chain for DOMAIN and *.DOMAIN, as PEM. By default the gateway generates a certificate for local use
    /// and stores its CA certificate in the data directory as tls/ca.pem.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_listen"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_listen"])]
    pub(crate) tls_key: Option<PathBuf>,
    /// Address of the unauthenticated Prometheus endpoint (/metrics). Off by default; restrict access to it.
    #[arg(long)]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Maximum number of client connections. By default 20000, or a third of the file descriptors if that is lower.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) connection_limit: Option<u32>,
    /// Maximum number of concurrent requests to one sandbox, including streams and WebSockets.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sandbox_connection_limit: u32,
}

/// Memory source of restored machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Memory {
    /// Share memory that is in RAM; load other memory page by page.
    Auto,
    /// Load all memory into RAM and share it.
    Cow,
    /// Load memory page by page.
    Paged,
}

/// Parses a domain that a wildcard certificate can cover. Returns it in lower case.
fn domain(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let is_domain = text.len() <= 190 && text.split('.').all(is_label);
    if !is_domain || text.parse::<std::net::IpAddr>().is_ok() {
        return Err("must be a domain name, without a port".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn domain_must_be_a_dns_name() {
        assert_eq!(domain("E2B.localhost"), Ok("e2b.localhost".to_owned()));
        for invalid in [
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
            assert!(domain(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn certificate_requires_key_and_tls_listener() {
        for invalid in [
            &["--tls-cert", "c"][..],
            &["--tls-key", "k", "--tls-listen", "127.0.0.1:1"],
            &["--tls-cert", "c", "--tls-key", "k"],
        ] {
            let args = ["catnap", "up"].iter().chain(invalid);
            assert!(Cli::try_parse_from(args).is_err(), "{invalid:?}");
        }
        let valid = [
            "catnap",
            "up",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
            "--tls-listen",
            "[::1]:0",
        ];
        assert!(Cli::try_parse_from(valid).is_ok());
    }
}
