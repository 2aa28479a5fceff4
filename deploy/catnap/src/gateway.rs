//! The gateway: edge and control around a host, in one process.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result, anyhow, bail};
use control::Control;
use coordinator::Coordinator;
use edge::{Edge, Limits, PanicCounter, StartError, Tls};
use pool_api::{Node, NodeId, Secret, TemplateName};
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::output;

/// Configuration of edge and control.
#[derive(Debug)]
pub struct Config {
    /// Plain HTTP address for the API and for sandboxes.
    pub listen: SocketAddr,
    /// TLS listener, if any.
    pub tls: Option<Tls>,
    /// Domain of the gateway, if any.
    pub domain: Option<String>,
    /// Address of the Prometheus endpoint, if any.
    pub metrics: Option<SocketAddr>,
    /// The panics of this process, for the Prometheus endpoint.
    pub panics: Option<PanicCounter>,
    /// Limits for clients.
    pub limits: Limits,
    /// Directory for the database and the control socket. It exists, and its path is absolute.
    pub data_dir: PathBuf,
    /// Key that callers of the API must send.
    pub api_key: Secret,
    /// Template to build before the gateway serves requests, unless it is built already.
    pub template: Option<TemplateName>,
}

/// Addresses that a gateway listens on.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Plain HTTP address.
    pub plain: SocketAddr,
    /// TLS address, if any.
    pub tls: Option<SocketAddr>,
    /// Address of the Prometheus endpoint, if any.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// Creates a configuration without TLS, domain, metrics and template.
    pub fn new(listen: SocketAddr, data_dir: PathBuf, api_key: Secret) -> Self {
        Self {
            listen,
            tls: None,
            domain: None,
            metrics: None,
            panics: None,
            limits: Limits::default(),
            data_dir,
            api_key,
            template: None,
        }
    }
}

impl Addresses {
    fn of(edge: &Edge) -> Self {
        Self {
            plain: edge.address(),
            tls: edge.tls_address(),
            metrics: edge.metrics_address(),
        }
    }
}

/// Runs edge and control around a host until `shutdown` completes. Sends the listen addresses to `ready`.
pub async fn run(
    config: Config,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()>,
    ready: Option<oneshot::Sender<Addresses>>,
) -> Result<()> {
    let socket = config.data_dir.join("control.sock");
    let coordinator = Arc::new(Coordinator::default());
    // First of all: an address in use is an error before any state changes.
    let edge = edge::Config {
        tls: config.tls,
        domain: config.domain,
        metrics: config.metrics,
        panics: config.panics,
        limits: config.limits,
        api_key: Some(config.api_key.clone()),
        ..edge::Config::new(config.listen, socket.clone())
    };
    let edge = Edge::bind(edge, node.clone(), coordinator.clone()).map_err(hint_addr_in_use)?;
    let addresses = Addresses::of(&edge);
    tokio::pin!(shutdown);
    if let Some(template) = &config.template {
        tokio::select! {
            built = build_template(&*node, template) => built?,
            () = &mut shutdown => return Ok(()),
        }
    }
    let name: NodeId = "local".parse().context("failed to parse the host name")?;
    let control = control::Config::new(config.data_dir.join("control.db"), config.api_key, name);
    let control = Control::start(control, node, coordinator).await?;

    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        // A dropped sender stops it as well.
        drop(stopped.wait_for(|stop| *stop).await);
    };
    let edge = edge.run(until(stopped.clone()));
    let control = control
        .serve_unix(&socket, until(stopped))
        .context("failed to start control")?;
    tokio::pin!(edge, control);
    print_addresses(&addresses)?;
    if let Some(ready) = ready {
        // The receiver may be dropped.
        let _dropped = ready.send(addresses);
    }
    tokio::select! {
        () = &mut shutdown => {}
        result = &mut edge => { result.context("failed to run the edge")?; bail!("the edge stopped unexpectedly") }
        result = &mut control => { result.context("failed to run control")?; bail!("control stopped unexpectedly") }
    }
    info!("gateway stopping");
    stop.send_replace(true);
    let (edge, control) = tokio::join!(edge, control);
    edge.context("failed to stop the edge")?;
    control.context("failed to stop control")
}

fn print_addresses(addresses: &Addresses) -> Result<()> {
    output::print_line(&format!("catnap listens on http://{}", addresses.plain))?;
    if let Some(tls) = addresses.tls {
        output::print_line(&format!("catnap listens on https://{tls}"))?;
    }
    if let Some(metrics) = addresses.metrics {
        output::print_line(&format!("metrics are at http://{metrics}/metrics"))?;
    }
    Ok(())
}

/// Adds the remedy to an error about an address in use.
fn hint_addr_in_use(error: StartError) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    let in_use = error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|cause| cause.kind() == io::ErrorKind::AddrInUse)
    });
    if in_use {
        anyhow!("{error:#}: stop the program that uses it, or choose another address")
    } else {
        error
    }
}

/// Builds a template unless it is built, and prints the progress.
async fn build_template(node: &dyn Node, name: &TemplateName) -> Result<()> {
    let begun = Instant::now();
    let exists = node
        .templates()
        .await
        .iter()
        .any(|template| template.name == *name);
    if !exists {
        output::print_line(&format!(
            "building template {name}: booting a guest and taking its snapshot"
        ))?;
    }
    node.build_template(name).await?;
    if !exists {
        output::print_line(&format!(
            "built template {name} in {:.1} s",
            begun.elapsed().as_secs_f64()
        ))?;
    }
    Ok(())
}
