//! TLS and connection limits of the gateway's listeners.

use std::path::Path;

use anyhow::{Context, Result};
use edge::{Limits, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{cli::ListenArgs, output};

/// Loads or generates the certificate of the TLS listener. Returns `None` if TLS is off.
pub(crate) fn tls(args: &ListenArgs, data_dir: &Path) -> Result<Option<Tls>> {
    let Some(listen) = args.tls_listen else {
        return Ok(None);
    };
    let config = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => edge::tls::from_files(certificate, key)?,
        _ => {
            let local = edge::tls::local(&data_dir.join("tls"), &args.domain)?;
            output::print_line(&format!(
                "certificate authority for *.{}: {}",
                args.domain,
                local.authority.display()
            ))?;
            local.config
        }
    };
    Ok(Some(Tls { listen, config }))
}

/// Computes the limits of client connections, and raises the file descriptor limit of this process to its maximum.
pub(crate) fn limits(args: &ListenArgs) -> Result<Limits> {
    let descriptors =
        raise_descriptor_limit().context("failed to raise the file descriptor limit")?;
    let defaults = Limits::default();
    // A connection needs one descriptor, and a request two: both ends of the API's socket, or the two holders of a
    // stream into a guest. The rest is for the host's own files.
    let available = descriptors.saturating_sub(HOST_DESCRIPTORS).max(3);
    let most = usize::try_from(available / 3).unwrap_or(usize::MAX);
    let connections = match args.connection_limit {
        Some(limit) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            if limit > most {
                warn!(
                    limit,
                    descriptors, "connection limit exceeds a third of the file descriptors"
                );
            }
            limit
        }
        None => defaults.connections.min(most),
    };
    let requests = defaults.requests.min(most);
    // One address never takes everything.
    let share = |all: usize| u32::try_from(all - all / 4).unwrap_or(u32::MAX);
    Ok(Limits {
        connections,
        connections_per_address: share(connections),
        requests,
        requests_per_address: share(requests),
        api_requests: defaults.api_requests.min((requests / 2).max(1)),
        connections_per_sandbox: args.sandbox_connection_limit,
        ..defaults
    })
}

/// File descriptors that clients never take: those of the database, of snapshots and of monitors.
const HOST_DESCRIPTORS: u64 = 512;

/// Raises the soft file descriptor limit to the hard one, and returns it.
fn raise_descriptor_limit() -> std::io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct TestCli {
        #[command(flatten)]
        listeners: ListenArgs,
    }

    fn parse(args: &[&str]) -> ListenArgs {
        TestCli::parse_from(["x"].iter().chain(args)).listeners
    }

    #[test]
    fn clients_leave_descriptors_to_the_host() {
        let capped = limits(&parse(&["--sandbox-connection-limit", "7"])).unwrap();
        let descriptors = getrlimit(Resource::Nofile);
        assert_eq!(descriptors.current, descriptors.maximum, "it was raised");
        let all = descriptors.current.unwrap_or(u64::MAX);
        // A connection has one descriptor, and a request two.
        let used = u64::try_from(capped.connections + 2 * capped.requests).unwrap();
        assert!(used + HOST_DESCRIPTORS <= all, "{capped:?} of {all}");
        assert!(capped.requests_per_address < u32::try_from(capped.requests).unwrap());
        assert!(capped.api_requests < capped.requests);
        assert_eq!(capped.connections_per_sandbox, 7);
        let given = limits(&parse(&["--connection-limit", "5"])).unwrap();
        assert_eq!(given.connections, 5);
    }

    #[test]
    fn tls_off_generates_no_certificate() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tls(&parse(&[]), dir.path()).unwrap().is_none());
        assert!(!dir.path().join("tls").exists());
    }

    #[test]
    fn missing_certificate_error_names_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.pem");
        let path = path.to_str().unwrap();
        let args = [
            "--tls-listen",
            "127.0.0.1:0",
            "--tls-cert",
            path,
            "--tls-key",
            path,
        ];
        let error = tls(&parse(&args), dir.path()).unwrap_err();
        assert!(
            format!("{error:#}").starts_with(&format!("failed to read {path}: ")),
            "{error:#}"
        );
    }
}
