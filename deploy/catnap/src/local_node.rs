//! The host of `catnap up`: a pool of machines on this machine's KVM.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use pool::{Artefacts, Limits, Pool, ReleaseRatio};
use snapshotter::MemoryMode;
use tracing::warn;
use vmm_api::Kvm;

use crate::cli::{Memory, UpArgs};

/// The template that every host has.
pub(crate) const BASE: &str = "base";

/// Kernel command line of guests: console, root disk and init.
pub const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 quiet root=/dev/vda rw init=/sbin/catnap-guest";

/// Opens the pool. An error names the requirement that this machine does not meet.
pub(crate) fn open(args: &UpArgs, data_dir: &Path) -> Result<Arc<Pool>> {
    let vmm = match &args.vmm {
        Some(path) => path.clone(),
        None => sibling("catnap-vmm")?,
    };
    if !vmm.is_file() {
        bail!(
            "{} does not exist; build the monitor, or set its path with --vmm",
            vmm.display()
        );
    }
    let hypervisor = Arc::new(hypervisor(args, vmm)?);
    vmm_api::check_userfaultfd()?;
    let guest = guest_dir(args)?;
    let artefacts = Artefacts {
        kernel: artefact(&guest, "vmlinux")?,
        disk: artefact(&guest, "base.ext4")?,
        command_line: KERNEL_COMMAND_LINE.to_owned(),
    };
    let limits = Limits {
        memory: match args.memory_limit {
            Some(mib) => mib.saturating_mul(1 << 20),
            None => total_memory()? / 4 * 3,
        },
        machines: args.machine_limit,
    };
    let mut config = pool::Config::new(data_dir.to_owned(), artefacts, hypervisor, limits);
    config.paused_release = ReleaseRatio::clamped(args.paused_resource_release_ratio);
    config.disk_reserve = args.disk_reserve.saturating_mul(1 << 20);
    config.memory = match args.memory {
        Memory::Auto => MemoryMode::Auto,
        Memory::Cow => MemoryMode::Cow,
        Memory::Paged => MemoryMode::Paged,
    };
    Ok(Pool::start(config)?)
}

/// Opens KVM. Monitors are jailed unless the operator asks for the opposite.
fn hypervisor(args: &UpArgs, vmm: PathBuf) -> Result<Kvm> {
    if args.no_jail {
        warn!(
            "--no-jail: monitors run with the privileges of this user and see its files; do not run untrusted guests"
        );
        return Ok(Kvm::unconfined(vmm)?);
    }
    Ok(Kvm::jailed(vmm, args.first_monitor_user)?)
}

/// Returns the path of a file in the directory of this program.
fn sibling(name: &str) -> Result<PathBuf> {
    Ok(env::current_exe()
        .context("failed to find the directory of this program")?
        .with_file_name(name))
}

fn guest_dir(args: &UpArgs) -> Result<PathBuf> {
    if let Some(dir) = &args.guest_dir {
        return Ok(dir.clone());
    }
    let built = sibling("..")?.join("guest");
    let installed = PathBuf::from("/usr/lib/catnap/guest");
    Ok(if installed.is_dir() && !built.is_dir() {
        installed
    } else {
        built
    })
}

/// Resolves the path of a guest file. It is absolute and without links.
fn artefact(dir: &Path, name: &str) -> Result<PathBuf> {
    dir.join(name).canonicalize().with_context(|| {
        format!(
            "failed to find {name} in the guest directory {} (build it with `cargo xtask build`, or set --guest-dir)",
            dir.display()
        )
    })
}

/// Reads the memory size of this machine in bytes.
fn total_memory() -> Result<u64> {
    const MEMINFO: &str = "/proc/meminfo";
    let text = fs::read_to_string(MEMINFO).with_context(|| format!("failed to read {MEMINFO}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{MEMINFO} has no memory size; set --memory-limit"))? << 10)
}
