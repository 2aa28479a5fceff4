//! The host of this machine: a pool over the KVM that is here.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use pool::{Artefacts, Limits, Pool};
use snapshotter::MemoryMode;
use vmm_api::Kvm;

use crate::cli::{self, Memory};

/// The template that every host has.
pub(crate) const BASE: &str = "base";

/// The guest's kernel is told where its root and its first program are.
const COMMAND_LINE: &str = "console=ttyS0 quiet root=/dev/vda rw init=/sbin/catnap-guest";

/// Opens the pool, or says in one sentence what this machine lacks.
pub(crate) fn open(args: &cli::Up, data_dir: &Path) -> Result<Arc<Pool>> {
    let vmm = match &args.vmm {
        Some(path) => path.clone(),
        None => beside("catnap-vmm")?,
    };
    if !vmm.is_file() {
        bail!(
            "there is no monitor at {}: build it, or name it with --vmm",
            vmm.display()
        );
    }
    let hypervisor = Arc::new(Kvm::new(vmm)?);
    vmm_api::check_userfaultfd()?;
    let guest = guest_dir(args)?;
    let artefacts = Artefacts {
        kernel: artefact(&guest, "vmlinux")?,
        disk: artefact(&guest, "base.ext4")?,
        command_line: COMMAND_LINE.to_owned(),
    };
    let limits = Limits {
        memory: match args.memory_limit {
            Some(mib) => mib.saturating_mul(1 << 20),
            None => total_memory()? / 4 * 3,
        },
        machines: args.machine_limit,
    };
    let mut config = pool::Config::new(data_dir.to_owned(), artefacts, hypervisor, limits);
    config.memory = match args.memory {
        Memory::Auto => MemoryMode::Auto,
        Memory::Cow => MemoryMode::Cow,
        Memory::Paged => MemoryMode::Paged,
    };
    Ok(Pool::start(config)?)
}

/// A program in the same folder as this one.
fn beside(name: &str) -> Result<PathBuf> {
    Ok(env::current_exe()
        .context("find this program's own folder")?
        .with_file_name(name))
}

fn guest_dir(args: &cli::Up) -> Result<PathBuf> {
    if let Some(dir) = &args.guest_dir {
        return Ok(dir.clone());
    }
    let built = beside("..")?.join("guest");
    let installed = PathBuf::from("/usr/lib/catnap/guest");
    Ok(if installed.is_dir() && !built.is_dir() {
        installed
    } else {
        built
    })
}

/// A file that templates are built from, by its full name: snapshots refer to the disk for as long as they live.
fn artefact(dir: &Path, name: &str) -> Result<PathBuf> {
    dir.join(name).canonicalize().with_context(|| {
        format!("find the guest's {name} in {}: build it with `cargo xtask build`, or name its folder with --guest-dir", dir.display())
    })
}

fn total_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read this machine's memory size")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("read this machine's memory size")? << 10)
}
