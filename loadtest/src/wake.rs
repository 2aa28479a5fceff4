//! Cost of forks and restores.

mod flat;
mod linux;

use std::path::PathBuf;

use vmm_api::{FIRST_USER, Kvm};

use crate::{floor::Floor, report::Report};

/// Options of `wake`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of wakes of each kind.
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// Monitor executable. Default: `catnap-vmm` in the directory of this program.
    #[arg(long)]
    vmm: Option<PathBuf>,
    /// Guest to wake.
    #[arg(long, value_enum, default_value_t = Guest::Flat)]
    guest: Guest,
    /// Measure monitors without a jail as well, in turns with jailed ones: the cost of the jail. For the flat guest.
    #[arg(long)]
    compare_unconfined: bool,
    /// Directory of the Linux guest's kernel and root disk, as for `catnap up`.
    #[arg(long)]
    guest_dir: Option<PathBuf>,
}

/// Guest to wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Guest {
    /// A few instructions in user mode: fork or restore to the guest's first exit, without a gateway.
    Flat,
    /// Linux behind a gateway: request to a paused sandbox until the first byte of the response.
    Linux,
}

/// Measures each kind of wake.
pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    if args.guest == Guest::Linux {
        return linux::measure(args.guest_dir.as_deref(), args.count, report).await;
    }
    let floor = Floor::measure()?;
    let vmm = match &args.vmm {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("catnap-vmm"),
    };
    let mut hypervisors = vec![("", Kvm::jailed(&vmm, FIRST_USER)?)];
    if args.compare_unconfined {
        hypervisors.push((", unconfined", Kvm::unconfined(&vmm)?));
    }
    flat::measure(hypervisors, args.count, &floor, report).await
}
