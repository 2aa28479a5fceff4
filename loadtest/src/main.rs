//! Asks the whole system the questions SPECIFICATION.md answers.
//!
//! `floor` measures what the kernel of this machine charges for each primitive; `wake` measures forks and restores and
//! prints each as a distribution and as a multiple of its floor: the sum of the primitives that the work cannot do
//! without. Every number comes with its machine and command; nothing here asserts.

#![deny(unsafe_code)]

mod floor;
mod record;
mod report;
#[allow(unsafe_code)]
mod sys;
mod wake;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// Measures Catnap and the kernel under it.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    question: Question,
    /// Print JSON, one object a row.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// What the kernel charges on this machine for each primitive.
    Floor,
    /// What a fork or a restore costs, stage by stage.
    Wake(wake::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new();
    match args.question {
        Question::Floor => floor::Floor::measure()?.report(&mut report),
        Question::Wake(wake) => wake::measure(&wake, &mut report).await?,
    }
    report.print(args.json)
}
