//! `catnap up`: runs the gateway on this machine.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use edge::PanicCounter;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use crate::{
    api_key::{self, KeyOrigin},
    cli::UpArgs,
    gateway::{self, Config},
    listeners, local_node, output,
};

/// Runs the gateway until SIGINT or SIGTERM.
pub(crate) async fn up(args: UpArgs) -> Result<()> {
    let panics = PanicCounter::new().context("failed to create the counter of panics")?;
    panics.install_hook();
    let data_dir = create_data_dir(&args.data_dir)?;
    let (api_key, origin) = api_key::load_or_create(args.api_key.as_deref(), &data_dir)?;
    // Before the pool: an invalid certificate is an error before any state changes.
    let tls = listeners::tls(&args.listeners, &data_dir)?;
    let limits = listeners::limits(&args.listeners)?;
    let pool = local_node::open(&args, &data_dir)?;
    if origin == KeyOrigin::Generated {
        output::print_line(&format!("API key: {}", api_key.expose()))?;
    }
    let template = local_node::BASE
        .parse()
        .context("failed to parse the template name")?;
    let config = Config {
        tls,
        domain: Some(args.listeners.domain),
        metrics: args.listeners.metrics_listen,
        panics: Some(panics),
        limits,
        template: Some(template),
        ..Config::new(args.listen, data_dir, api_key)
    };
    let result = gateway::run(config, pool.clone(), shutdown_signal(), None).await;
    pool.shutdown().await;
    result
}

/// Creates the data directory for this user only, and returns its absolute path.
fn create_data_dir(path: &Path) -> Result<PathBuf> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("failed to create the data directory {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("failed to open the data directory {}", path.display()))
}

/// Waits for SIGINT or SIGTERM.
async fn shutdown_signal() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            warn!(error = %error_chain::chain(&error), "failed to watch for SIGTERM");
            return;
        }
    };
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => {
            if let Err(error) = interrupt {
                warn!(error = %error_chain::chain(&error), "failed to watch for SIGINT");
            }
        }
        _ = terminate.recv() => {}
    }
}
