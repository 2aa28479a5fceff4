//! What a fork or a restore costs.

mod flat;
mod linux;

use std::path::PathBuf;

use crate::{floor::Floor, report::Report};

/// Which wakes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many of each.
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// The monitor; by default `catnap-vmm` beside this program.
    #[arg(long)]
    vmm: Option<PathBuf>,
    /// Which guest.
    #[arg(long, value_enum, default_value_t = Guest::Flat)]
    guest: Guest,
    /// For the Linux guest: the folder with its kernel and root disk, as `catnap up` takes it.
    #[arg(long)]
    guest_dir: Option<PathBuf>,
}

/// What is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Guest {
    /// A few instructions in user mode: forks and restores alone, to the guest's first exit.
    Flat,
    /// Linux behind the whole gateway: a request at a sleeping sandbox, to the first byte of its answer.
    Linux,
}

/// Measures each kind of wake of a guest.
pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    if args.guest == Guest::Linux {
        return linux::measure(args.guest_dir.as_deref(), args.count, report).await;
    }
    let floor = Floor::measure()?;
    let vmm = match &args.vmm {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("catnap-vmm"),
    };
    flat::measure(vmm, args.count, &floor, report).await
}
