//! The gateway on one machine: edge and control around a host, in one process.

use std::{
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use control::Control;
use coordinator::InMemory;
use edge::Edge;
use pool_api::{Node, NodeId, Secret, TemplateName};
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::{
    cli, host,
    key::{self, Origin},
    output,
};

/// What edge and control are set up with.
#[derive(Debug)]
pub struct Config {
    /// Where requests are taken.
    pub listen: SocketAddr,
    /// Where everything is kept: an existing directory, by its full name.
    pub data_dir: PathBuf,
    /// What callers of the API must send.
    pub api_key: Secret,
    /// A template to be built, if it is not yet, before requests are answered.
    pub template: Option<TemplateName>,
}

/// `catnap up`.
pub(crate) async fn up(args: cli::Up) -> Result<()> {
    let data_dir = make_dir(&args.data_dir)?;
    let (api_key, origin) = key::obtain(args.api_key.as_deref(), &data_dir)?;
    let pool = host::open(&args, &data_dir)?;
    if origin == Origin::Made {
        output::line(&format!("API key: {}", api_key.expose()))?;
    }
    let config = Config {
        listen: args.listen,
        data_dir,
        api_key,
        template: Some(host::BASE.parse().context("name the template")?),
    };
    let done = run(config, pool.clone(), interrupted(), None).await;
    pool.shutdown().await;
    done
}

/// Runs edge and control around a host until `shutdown` is ready. `ready` is told where it listens.
pub async fn run(
    config: Config,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()>,
    ready: Option<oneshot::Sender<SocketAddr>>,
) -> Result<()> {
    let socket = config.data_dir.join("control.sock");
    let coordinator = Arc::new(InMemory::default());
    // First of all, so that a port in use is said before anything is touched.
    let edge = edge::Config::new(config.listen, socket.clone());
    let edge = Edge::bind(edge, node.clone(), coordinator.clone())?;
    let address = edge.address();
    tokio::pin!(shutdown);
    if let Some(template) = &config.template {
        tokio::select! {
            built = build(&*node, template) => built?,
            () = &mut shutdown => return Ok(()),
        }
    }
    let name: NodeId = "local".parse().context("name this host")?;
    let control = control::Config::new(config.data_dir.join("control.db"), config.api_key, name);
    let control = Control::start(control, node, coordinator).await?;

    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        // The sender going away is as good as being told.
        drop(stopped.wait_for(|stop| *stop).await);
    };
    let edge = edge.run(until(stopped.clone()));
    let control = control
        .serve_unix(&socket, until(stopped))
        .context("start control")?;
    tokio::pin!(edge, control);
    output::line(&format!("catnap listens on http://{address}"))?;
    if let Some(ready) = ready {
        // Whoever asked may have gone.
        let _gone = ready.send(address);
    }
    tokio::select! {
        () = &mut shutdown => {}
        done = &mut edge => { done.context("run the edge")?; bail!("the edge ended by itself") }
        done = &mut control => { done.context("run control")?; bail!("control ended by itself") }
    }
    info!("shutting down");
    stop.send_replace(true);
    let (edge, control) = tokio::join!(edge, control);
    edge.context("end the edge")?;
    control.context("end control")
}

/// Sees to it that a template is there.
async fn build(node: &dyn Node, name: &TemplateName) -> Result<()> {
    let begun = std::time::Instant::now();
    let known = node
        .templates()
        .await
        .iter()
        .any(|template| template.name == *name);
    if !known {
        output::line(&format!(
            "building template {name}: booting a guest and keeping its snapshot"
        ))?;
    }
    node.build_template(name).await?;
    if !known {
        output::line(&format!(
            "built template {name} in {:.1} s",
            begun.elapsed().as_secs_f64()
        ))?;
    }
    Ok(())
}

/// The data directory, by its full name, for this user only.
fn make_dir(path: &Path) -> Result<PathBuf> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.with_context(|| format!("make the data directory {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("find the data directory {}", path.display()))
}

async fn interrupted() {
    let mut terminate =
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(error) => {
                tracing::warn!(%error, "could not watch for SIGTERM");
                return;
            }
        };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => {
            if let Err(error) = interrupted {
                tracing::warn!(%error, "could not watch for Ctrl-C");
            }
        }
        _ = terminate.recv() => {}
    }
}
