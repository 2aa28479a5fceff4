//! Configuration of a pool.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pool_api::Resources;
use snapshotter::MemoryMode;
use vmm_api::Hypervisor;

use crate::{Limits, ReleaseRatio};

/// Configuration of a pool. [`Config::new`] has defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory, for one pool at a time.
    pub data_dir: PathBuf,
    /// The files that templates are built from.
    pub artefacts: Artefacts,
    /// Spawns monitors.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The machines that may run at once.
    pub limits: Limits,
    /// The share of a paused sandbox's memory that others may use.
    pub paused_release: ReleaseRatio,
    /// The blanks to keep ahead of demand.
    pub blanks: Vec<BlankCount>,
    /// How memory arrives. `Auto` shares the memory of forks and pages that of restored sandboxes; the other modes are for
    /// measurements.
    pub memory: MemoryMode,
    /// The resources of templates; the disk is as large as its image, or this size if that is larger.
    pub resources: Resources,
    /// The time for leases to be returned before an explicit pause or a kill proceeds without them.
    pub drain_timeout: Duration,
    /// The timeout of the guest init after a fork or restore.
    pub guest_init_timeout: Duration,
    /// The timeout of a boot.
    pub boot_timeout: Duration,
    /// The time that a template's guest runs once it is ready, so that the snapshot contains its background work.
    pub settle_time: Duration,
    /// Children of one fork that start concurrently.
    pub parallel_starts: usize,
    /// Machines of the host that start concurrently; further starts queue in order of arrival.
    pub concurrent_starts: usize,
    /// Starts that take long and run beside the concurrent starts.
    pub slow_starts: usize,
    /// The time that a start waits for room on a full host before it is refused.
    pub room_timeout: Duration,
    /// Snapshots of machines that are taken concurrently; further ones queue in order of arrival.
    pub concurrent_captures: usize,
    /// The time that a sandbox runs at least before it is paused for being idle.
    pub least_awake: Duration,
    /// Bytes of the data directory's filesystem that are kept free for pauses: no sandbox is created below.
    pub disk_reserve: u64,
    /// Whether a clean shutdown pauses running sandboxes. Otherwise they are lost, as in a crash.
    pub pause_on_shutdown: bool,
}

/// The files that templates are built from.
#[derive(Debug, Clone)]
pub struct Artefacts {
    /// An uncompressed ELF kernel.
    pub kernel: PathBuf,
    /// The root disk, a raw image.
    pub disk: PathBuf,
    /// The kernel command line.
    pub command_line: String,
}

/// A number of blanks of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlankCount {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory in bytes.
    pub memory: u64,
    /// Number of blanks.
    pub count: usize,
}

impl Config {
    /// Configures a pool in `data_dir`: one vCPU and 512 MiB a machine, two blanks ahead.
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
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            data_dir,
            artefacts,
            hypervisor,
            limits,
            paused_release: ReleaseRatio::default(),
            blanks: vec![BlankCount {
                vcpus: resources.vcpus,
                memory: resources.memory,
                count: 2,
            }],
            memory: MemoryMode::Auto,
            resources,
            drain_timeout: Duration::from_secs(2),
            guest_init_timeout: Duration::from_secs(30),
            boot_timeout: Duration::from_secs(180),
            settle_time: Duration::from_secs(2),
            parallel_starts: 4,
            concurrent_starts: processors.max(2),
            slow_starts: processors.max(2),
            room_timeout: Duration::from_secs(30),
            concurrent_captures: processors.max(2),
            least_awake: Duration::from_secs(5),
            disk_reserve: 1 << 30,
            pause_on_shutdown: true,
        }
    }
}
