//! A fault campaign: a gateway and its monitors are killed at random, and its files fail at random.
//!
//! Each sandbox holds a number in a file of its guest's memory. Its task writes a higher one, pauses the sandbox and reads
//! the number back, for as long as the campaign lasts. A pause that the API acknowledged makes the number durable: whatever
//! fails later, the sandbox answers with that number or with a later one that was sent. At the end the faults stop, every
//! sandbox must answer, and after it is killed nothing of it may be left.

mod disk;
mod faults;
mod leftovers;
mod sandbox;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::watch;

use self::{disk::LoopDisk, faults::Faults, sandbox::Sandbox};
use crate::{gateway::Launch, report::Report};

/// Options of `chaos`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Duration of the campaign.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of the faults and of the operations. By default a random one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of sandboxes.
    #[arg(long, default_value_t = 4)]
    sandboxes: u32,
    /// Size of the data directory's filesystem in MiB.
    #[arg(long, default_value_t = 6144)]
    disk: u64,
    /// File for the gateway's log.
    #[arg(long, default_value = "chaos.log")]
    log: PathBuf,
    /// Directory of the Linux guest's kernel and root disk, as for `catnap up`.
    #[arg(long)]
    guest_dir: Option<PathBuf>,
}

/// Runs the campaign, and fails if an acknowledged pause was lost or something is left over.
pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| rand::rng().random());
    report.note(format!("seed: {seed}"));
    let disk = LoopDisk::create(args.disk).context("failed to mount a filesystem for the data")?;
    let launch = Launch {
        log: Some(std::path::absolute(&args.log)?),
        ..Launch::new(&disk.path().join("data"), args.guest_dir.as_deref(), &[])?
    };
    let gateway = launch.start().await?;
    let client = gateway.client().clone();
    let (stop, stopped) = watch::channel(false);
    let mut random = StdRng::seed_from_u64(seed);
    let mut tasks = Vec::new();
    for number in 0..args.sandboxes {
        let sandbox = Sandbox::new(client.clone(), number, random.random());
        tasks.push(tokio::spawn(sandbox.run_until(stopped.clone())));
    }
    let mut faults = Faults::new(launch.clone(), gateway, Arc::new(disk), random);
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while Instant::now() < end {
        faults.inject().await?;
    }
    stop.send_replace(true);
    let mut lost = Vec::new();
    let mut totals = sandbox::Totals::default();
    let mut sandboxes = Vec::new();
    for task in tasks {
        sandboxes.push(task.await?);
    }
    for sandbox in &mut sandboxes {
        sandbox.verify().await;
        lost.extend(sandbox.violations.iter().cloned());
        totals.add(&sandbox.totals);
    }
    for sandbox in &mut sandboxes {
        sandbox.remove().await?;
    }
    let (counts, gateway, disk) = faults.finish();
    report.note(counts);
    report.note(totals.to_string());
    gateway.stop().await?;
    lost.extend(leftovers::find(&launch)?);
    drop(disk);
    for violation in &lost {
        report.note(format!("VIOLATION: {violation}"));
    }
    if !lost.is_empty() {
        report.print(false)?;
        anyhow::bail!(
            "{} violations; the log is in {}",
            lost.len(),
            args.log.display()
        );
    }
    report.note("every acknowledged pause answered; nothing is left over".to_owned());
    Ok(())
}
