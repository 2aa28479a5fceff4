//! A host with many paused sandboxes: start, lists, pauses and memory of the gateway.
//!
//! One sandbox is paused through the API; the others are copies of its files and of its row in the ledger, made while the
//! gateway is down.

mod clones;

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use serde_json::json;

use crate::{gateway::Gateway, histogram::Histogram, report::Report};

/// Options of `scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of paused sandboxes.
    #[arg(long, default_value_t = 10_000)]
    sandboxes: u32,
    /// Number of lists and of pauses to measure.
    #[arg(long, default_value_t = 30)]
    count: u32,
    /// Directory of the Linux guest's kernel and root disk, as for `catnap up`.
    #[arg(long)]
    guest_dir: Option<PathBuf>,
}

/// Measures a host with few and with many paused sandboxes.
pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let start = async || Gateway::start(&data, args.guest_dir.as_deref(), &[]).await;
    let gateway = start().await?;
    let model = create(&gateway).await?;
    pause(&gateway, &model).await?;
    gateway.stop().await?;
    measure_host(1, start().await?, args, report, None).await?;
    clones::make(&data, &model, args.sandboxes.saturating_sub(1)).await?;
    let began = Instant::now();
    let gateway = start().await?;
    let started = began.elapsed();
    measure_host(args.sandboxes, gateway, args, report, Some(started)).await
}

async fn measure_host(
    sandboxes: u32,
    gateway: Gateway,
    args: &Args,
    report: &mut Report,
    started: Option<std::time::Duration>,
) -> anyhow::Result<()> {
    if let Some(started) = started {
        let mut once = Histogram::new()?;
        once.add(started);
        report.add(format!("{sandboxes} paused: start to healthy"), &once, None);
    }
    let resident = gateway.resident_kib()?;
    let (mut lists, mut pauses) = (Histogram::new()?, Histogram::new()?);
    for _ in 0..args.count {
        let began = Instant::now();
        let page = gateway.api("GET", "/v2/sandboxes?limit=100", None).await?;
        lists.add(began.elapsed());
        let expected = usize::try_from(sandboxes)?.min(100);
        let found = page.as_array().map_or(0, Vec::len);
        anyhow::ensure!(found == expected, "{found} sandboxes on the first page");
    }
    let sandbox = create(&gateway).await?;
    for _ in 0..args.count {
        let began = Instant::now();
        pause(&gateway, &sandbox).await?;
        pauses.add(began.elapsed());
        let body = json!({ "timeout": 3600 });
        let path = format!("/sandboxes/{sandbox}/resume");
        gateway.api("POST", &path, Some(&body)).await?;
    }
    gateway
        .api("DELETE", &format!("/sandboxes/{sandbox}"), None)
        .await?;
    report.add(
        format!("{sandboxes} paused: list page of 100"),
        &lists,
        None,
    );
    report.add(
        format!("{sandboxes} paused: pause of another"),
        &pauses,
        None,
    );
    report.note(format!(
        "{sandboxes} paused: the gateway has {} MiB resident",
        resident >> 10
    ));
    gateway.stop().await
}

async fn create(gateway: &Gateway) -> anyhow::Result<String> {
    let spec = json!({ "templateID": "base", "timeout": 3600, "secure": false });
    let sandbox = gateway.api("POST", "/sandboxes", Some(&spec)).await?;
    let id = sandbox["sandboxID"]
        .as_str()
        .context("the new sandbox has no id")?;
    Ok(id.to_owned())
}

async fn pause(gateway: &Gateway, id: &str) -> anyhow::Result<()> {
    gateway
        .api("POST", &format!("/sandboxes/{id}/pause"), None)
        .await?;
    Ok(())
}
