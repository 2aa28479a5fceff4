//! The front door's certificate, and how many it lets in.

use std::path::Path;

use anyhow::{Context, Result};
use edge::{Limits, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{cli, output};

/// What serves TLS, if anything is to.
pub(crate) fn tls(args: &cli::Door, data_dir: &Path) -> Result<Option<Tls>> {
    let Some(listen) = args.tls_listen else {
        return Ok(None);
    };
    let config = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => edge::tls::from_files(certificate, key)?,
        _ => {
            let local = edge::tls::local(&data_dir.join("tls"), &args.domain)?;
            output::line(&format!(
                "certificate authority for *.{}: {}",
                args.domain,
                local.authority.display()
            ))?;
            local.config
        }
    };
    Ok(Some(Tls { listen, config }))
}

/// What clients may cost. Lets this process have as many files open as it may.
pub(crate) fn limits(args: &cli::Door) -> Result<Limits> {
    let files = raise_files().context("raise how many files may be open")?;
    let usual = Limits::default();
    // A connection is one file, and its request another one.
    let most = usize::try_from(files / 2).unwrap_or(usize::MAX);
    let connections = match args.connection_limit {
        Some(asked) => {
            let asked = usize::try_from(asked).unwrap_or(usize::MAX);
            if asked > most {
                warn!(asked, files, "more connections are allowed than files");
            }
            asked
        }
        None => usual.connections.min(most),
    };
    Ok(Limits {
        connections,
        connections_per_sandbox: args.sandbox_connection_limit,
        ..usual
    })
}

/// The files that may be open, raised to what is allowed.
fn raise_files() -> std::io::Result<u64> {
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
mod test {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        door: cli::Door,
    }

    fn door(args: &[&str]) -> cli::Door {
        Line::parse_from(["x"].iter().chain(args)).door
    }

    #[test]
    fn the_files_that_may_be_open_bound_the_connections() {
        let limits = limits(&door(&["--sandbox-connection-limit", "7"])).unwrap();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum, "raised");
        let most = usize::try_from(now.current.unwrap_or(u64::MAX) / 2).unwrap();
        assert_eq!(limits.connections, most.min(20_000));
        assert_eq!(limits.connections_per_sandbox, 7);
        let asked = super::limits(&door(&["--connection-limit", "5"])).unwrap();
        assert_eq!(asked.connections, 5);
    }

    #[test]
    fn a_missing_certificate_is_named_and_none_is_made_unasked() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tls(&door(&[]), dir.path()).unwrap().is_none());
        assert!(!dir.path().join("tls").exists());
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
        let error = tls(&door(&args), dir.path()).unwrap_err();
        assert!(
            format!("{error:#}").starts_with(&format!("failed to read {path}: ")),
            "{error:#}"
        );
    }
}
