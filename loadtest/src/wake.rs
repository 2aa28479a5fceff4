//! What a fork or a restore costs.

mod flat;

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
}

/// Measures each kind of wake of the flat guest.
pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let floor = Floor::measure()?;
    let vmm = match &args.vmm {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("catnap-vmm"),
    };
    flat::measure(vmm, args.count, &floor, report).await
}
