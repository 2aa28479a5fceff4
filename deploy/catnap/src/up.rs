//! The gateway on one machine: edge and control around a host, in one process.

use std::{
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use control::Control;
use coordinator::Coordinator;
use edge::{Edge, Limits, Tls};
use pool_api::{Node, NodeId, Secret, TemplateName};
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::{
    cli, door, host,
    key::{self, Origin},
    output,
};

/// What edge and control are set up with.
#[derive(Debug)]
pub struct Config {
    /// Where requests are taken.
    pub listen: SocketAddr,
    /// Where they are taken with TLS, if anywhere.
    pub tls: Option<Tls>,
    /// The domain of this gateway.
    pub domain: Option<String>,
    /// Where Prometheus is answered, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// What clients may cost.
    pub limits: Limits,
    /// Where everything is kept: an existing directory, by its full name.
    pub data_dir: PathBuf,
    /// What callers of the API must send.
    pub api_key: Secret,
    /// A template to be built, if it is not yet, before requests are answered.
    pub template: Option<TemplateName>,
}

/// A gateway that is up.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Where requests are taken.
    pub plain: SocketAddr,
    /// Where they are taken with TLS.
    pub tls: Option<SocketAddr>,
    /// Where Prometheus is answered.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// The usual, without TLS and metrics.
    pub fn new(listen: SocketAddr, data_dir: PathBuf, api_key: Secret) -> Self {
        Self {
            listen,
            tls: None,
            domain: None,
            metrics: None,
            limits: Limits::default(),
            data_dir,
            api_key,
            template: None,
        }
    }
}

/// `catnap up`.
pub(crate) async fn up(args: cli::Up) -> Result<()> {
    let data_dir = make_dir(&args.data_dir)?;
    let (api_key, origin) = key::obtain(args.api_key.as_deref(), &data_dir)?;
    // Before the pool: what is wrong with a certificate is said before anything is touched.
    let tls = door::tls(&args.door, &data_dir)?;
    let limits = door::limits(&args.door)?;
    let pool = host::open(&args, &data_dir)?;
    if origin == Origin::Made {
        output::line(&format!("API key: {}", api_key.expose()))?;
    }
    let config = Config {
        tls,
        domain: Some(args.door.domain),
        metrics: args.door.metrics_listen,
        limits,
        template: Some(host::BASE.parse().context("name the template")?),
        ..Config::new(args.listen, data_dir, api_key)
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
    ready: Option<oneshot::Sender<Addresses>>,
) -> Result<()> {
    let socket = config.data_dir.join("control.sock");
    let coordinator = Arc::new(Coordinator::default());
    // First of all, so that a port in use is said before anything is touched.
    let edge = edge::Config {
        tls: config.tls,
        domain: config.domain,
        metrics: config.metrics,
        limits: config.limits,
        api_key: Some(config.api_key.clone()),
        ..edge::Config::new(config.listen, socket.clone())
    };
    let edge = Edge::bind(edge, node.clone(), coordinator.clone()).map_err(advise)?;
    let addresses = Addresses {
        plain: edge.address(),
        tls: edge.tls_address(),
        metrics: edge.metrics_address(),
    };
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
    say(&addresses)?;
    if let Some(ready) = ready {
        // Whoever asked may have gone.
        let _gone = ready.send(addresses);
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

fn say(addresses: &Addresses) -> Result<()> {
    output::line(&format!("catnap listens on http://{}", addresses.plain))?;
    if let Some(tls) = addresses.tls {
        output::line(&format!("catnap listens on https://{tls}"))?;
    }
    if let Some(metrics) = addresses.metrics {
        output::line(&format!("metrics are at http://{metrics}/metrics"))?;
    }
    Ok(())
}

/// Says what can be done about an address that is taken.
fn advise(error: edge::StartError) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    let taken = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
    });
    if taken {
        anyhow::anyhow!("{error:#}: end what uses it, or choose another address")
    } else {
        error
    }
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
