//! Many paused sandboxes that are woken at once, each by a request of its own.

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use serde_json::json;

use crate::{gateway::Gateway, histogram::Histogram, report::Report};

/// Options of `storm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of sandboxes.
    #[arg(long, default_value_t = 60)]
    sandboxes: u32,
    /// Directory of the Linux guest's kernel and root disk, as for `catnap up`.
    #[arg(long)]
    guest_dir: Option<PathBuf>,
}

/// Wakes one sandbox, then all of them at once; every request must be answered.
pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let gateway = Gateway::start(&dir.path().join("data"), args.guest_dir.as_deref(), &[]).await?;
    let mut ids = Vec::new();
    for _ in 0..args.sandboxes {
        let spec = json!({
            // An idle window: the host may be too small for all at once.
            "templateID": "base", "timeout": 86400, "secure": false, "autoPause": true, "idleTimeout": 3600,
            "autoResume": { "enabled": true },
        });
        let sandbox = gateway.api("POST", "/sandboxes", Some(&spec)).await?;
        let id = sandbox["sandboxID"]
            .as_str()
            .context("the new sandbox has no id")?;
        ids.push(id.to_owned());
        pause(&gateway, id).await?;
    }
    let mut alone = Histogram::new()?;
    for id in ids.iter().take(10) {
        alone.add(gateway.client().request(id).await?.0);
        pause(&gateway, id).await?;
    }
    let mut together = Histogram::new()?;
    let began = Instant::now();
    let wakes: Vec<_> = ids
        .iter()
        .map(|id| {
            let (client, id) = (gateway.client().clone(), id.clone());
            tokio::spawn(async move { client.request(&id).await })
        })
        .collect();
    for wake in wakes {
        together.add(wake.await?.context("a request was not answered")?.0);
    }
    let total = began.elapsed();
    let bound = alone.p50() * args.sandboxes;
    report.add("Linux guest: one wake alone", &alone, None);
    report.add(
        format!("Linux guest: {} wakes at once, each", args.sandboxes),
        &together,
        None,
    );
    report.note(format!(
        "all {} answered after {:.2} s; one after the other they would take {:.2} s",
        args.sandboxes,
        total.as_secs_f64(),
        bound.as_secs_f64(),
    ));
    gateway.stop().await
}

async fn pause(gateway: &Gateway, id: &str) -> anyhow::Result<()> {
    gateway
        .api("POST", &format!("/sandboxes/{id}/pause"), None)
        .await?;
    Ok(())
}
