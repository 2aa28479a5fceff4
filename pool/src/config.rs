//! What a pool is given.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pool_api::Resources;
use snapshotter::Mode;
use vmm_api::Hypervisor;

use crate::Limits;

/// What a pool is given. [`Config::new`] has what suits most.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept. One pool at a time.
    pub data_dir: PathBuf,
    /// What templates are built from.
    pub artefacts: Artefacts,
    /// Makes machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What may run at once.
    pub limits: Limits,
    /// Blanks kept ahead. More when wakes come in bursts.
    pub shelf: Vec<ShelfSize>,
    /// How memory arrives. `Auto` shares a fork's memory and pages a restored one's; force one to measure it.
    pub memory: Mode,
    /// What templates are built with; the disk's size is the image's, or this if it is larger.
    pub resources: Resources,
    /// How long leases have to be given back before an explicit pause or a kill goes on without them.
    pub drain: Duration,
    /// How long a guest may take to hear what it is now.
    pub awaken: Duration,
    /// How long a template may take to become ready.
    pub boot: Duration,
    /// How long a template's guest is left alone once it is ready, so that what it still does is in the snapshot.
    pub settle: Duration,
    /// Children of one fork that are started at the same time.
    pub parallel_starts: usize,
    /// Whether a clean shutdown pauses what runs. Otherwise it is lost, as in a crash.
    pub pause_on_shutdown: bool,
}

/// What templates are built from.
#[derive(Debug, Clone)]
pub struct Artefacts {
    /// An uncompressed ELF kernel.
    pub kernel: PathBuf,
    /// The root disk, a raw image.
    pub disk: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
}

/// How many blanks of a size are kept ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShelfSize {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory in bytes.
    pub memory: u64,
    /// How many.
    pub count: usize,
}

impl Config {
    /// A pool in `data_dir`: one vCPU and 512 MiB a machine, two blanks ahead.
    pub fn new(
        data_dir: PathBuf,
        artefacts: Artefacts,
        hypervisor: Arc<dyn Hypervisor>,
        limits: Limits,
    ) -> Self {
        let resources = Resources {
            vcpus: 1,
            memory: 512 << 20,
            disk: 0,
        };
        Self {
            data_dir,
            artefacts,
            hypervisor,
            limits,
            shelf: vec![ShelfSize {
                vcpus: resources.vcpus,
                memory: resources.memory,
                count: 2,
            }],
            memory: Mode::Auto,
            resources,
            drain: Duration::from_secs(2),
            awaken: Duration::from_secs(30),
            boot: Duration::from_secs(180),
            settle: Duration::from_secs(2),
            parallel_starts: 4,
            pause_on_shutdown: true,
        }
    }
}
