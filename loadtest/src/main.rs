//! Load test of Catnap and benchmark of the kernel under it.
//!
//! `floor` measures the cost of each kernel primitive on this machine. `wake` measures forks and restores and prints
//! each as a distribution and as a multiple of its floor: the sum of the primitives that the operation requires. The
//! report names the machine and the command. The load test asserts nothing.

#![deny(unsafe_code)]

mod chaos;
mod floor;
mod gateway;
mod histogram;
mod report;
mod scale;
mod storm;
#[allow(unsafe_code)]
mod sys;
mod wake;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// Measures Catnap and the kernel under it.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, one object per row.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the cost of each kernel primitive on this machine.
    Floor,
    /// Measure forks and restores, stage by stage.
    Wake(wake::Args),
    /// Kill and starve a gateway at random, and check that no acknowledged pause is lost.
    Chaos(chaos::Args),
    /// Measure a host with many paused sandboxes.
    Scale(scale::Args),
    /// Wake many sandboxes at once.
    Storm(storm::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new();
    match args.command {
        Command::Floor => floor::Floor::measure()?.report(&mut report),
        Command::Wake(wake) => wake::measure(&wake, &mut report).await?,
        Command::Chaos(chaos) => chaos::run(&chaos, &mut report).await?,
        Command::Scale(scale) => scale::measure(&scale, &mut report).await?,
        Command::Storm(storm) => storm::measure(&storm, &mut report).await?,
    }
    report.print(args.json)
}
