//! Monitors and flat guests on the KVM of this machine.

#![allow(clippy::unwrap_used, reason = "a fixture fails by panicking")]

use std::{
    fs::{File, OpenOptions},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;
use tokio::sync::watch;
use vmm_api::{
    Blank, BlankSpec, BootSpec, CaptureSpec, Disk, FIRST_USER, Kvm, KvmBlank, LoadSpec, Machine,
    MachineFiles, MemorySource, flat,
};

const MEMORY: u64 = 16 << 20;

/// Spawns monitors, each with a run directory of its own.
#[derive(Debug)]
pub(crate) struct Fixture {
    kvm: Kvm,
    dir: TempDir,
    count: AtomicU32,
}

/// A machine and the doorbell of its guest.
#[derive(Debug)]
pub(crate) struct FlatMachine {
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) doorbell: watch::Receiver<Option<u32>>,
}

/// Files of a captured machine.
#[derive(Debug)]
pub(crate) struct Snapshot {
    image: File,
    memory: Arc<OwnedFd>,
}

impl Fixture {
    /// Creates a fixture; `None`, with a message, on a machine without KVM.
    pub(crate) fn new() -> Option<Self> {
        if !Path::new("/dev/kvm").exists() {
            eprintln!("SKIPPED: this machine has no /dev/kvm");
            return None;
        }
        let kvm = Kvm::jailed(env!("CARGO_BIN_EXE_catnap-vmm"), FIRST_USER)
            .unwrap()
            .with_doorbell();
        Some(Self {
            kvm,
            dir: tempfile::tempdir().unwrap(),
            count: AtomicU32::new(0),
        })
    }

    pub(crate) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// Creates a run directory and a spec that names it.
    pub(crate) fn blank_spec(&self) -> BlankSpec {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let run_dir = self.dir.path().join(number.to_string());
        std::fs::create_dir(&run_dir).unwrap();
        BlankSpec {
            vcpus: 1,
            memory: MEMORY,
            run_dir,
        }
    }

    /// Spawns a blank.
    pub(crate) async fn blank(&self) -> KvmBlank {
        self.kvm.spawn(self.blank_spec()).await.unwrap()
    }

    fn console(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("console"))
            .unwrap()
    }

    /// Boots the flat guest and waits for its first ring.
    pub(crate) async fn boot(&self, pages: u32) -> FlatMachine {
        self.boot_ready(&flat::kernel(pages), Vec::new()).await
    }

    /// Boots the flat guest with a disk and waits for its first ring.
    pub(crate) async fn boot_with_disk(&self, disk: Disk) -> FlatMachine {
        self.boot_ready(&flat::kernel_with_disk(), vec![disk]).await
    }

    async fn boot_ready(&self, image: &[u8], disks: Vec<Disk>) -> FlatMachine {
        let mut guest = self.boot_with(image, disks).await;
        let ring = *guest.doorbell.wait_for(Option::is_some).await.unwrap();
        assert_eq!(ring, Some(flat::READY));
        guest
    }

    /// Boots a kernel image.
    pub(crate) async fn boot_image(&self, image: &[u8]) -> FlatMachine {
        self.boot_with(image, Vec::new()).await
    }

    async fn boot_with(&self, image: &[u8], disks: Vec<Disk>) -> FlatMachine {
        let kernel = tempfile::tempfile().unwrap();
        kernel.write_all_at(image, 0).unwrap();
        let spec = BootSpec {
            kernel,
            command_line: String::new(),
            disks,
            console: self.console(),
        };
        let blank = self.blank().await;
        let doorbell = blank.doorbell();
        FlatMachine {
            machine: Box::new(blank).boot(spec).await.unwrap(),
            doorbell,
        }
    }

    /// Captures a paused machine without disks.
    pub(crate) async fn capture(&self, guest: &FlatMachine) -> Snapshot {
        self.capture_with(guest, Vec::new()).await
    }

    /// Captures a paused machine, and the bitmaps of its disks.
    pub(crate) async fn capture_with(
        &self,
        guest: &FlatMachine,
        disk_bitmaps: Vec<File>,
    ) -> Snapshot {
        let memory = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(MEMORY).unwrap();
        let image = tempfile::tempfile().unwrap();
        let spec = CaptureSpec {
            machine: Some(MachineFiles {
                image: image.try_clone().unwrap(),
                pages: memory.try_clone().unwrap(),
                pages_offset: 0,
                page_index: tempfile::tempfile().unwrap(),
            }),
            disk_bitmaps,
        };
        guest.machine.capture(spec).await.unwrap();
        Snapshot {
            image,
            memory: Arc::new(memory.into()),
        }
    }

    /// Boots the flat guest and captures it before its first pass.
    pub(crate) async fn snapshot(&self, pages: u32) -> Snapshot {
        let guest = self.boot(pages).await;
        guest.machine.pause().await.unwrap();
        self.capture(&guest).await
    }

    /// Loads a snapshot that holds all of guest memory.
    pub(crate) async fn fork(&self, snapshot: &Snapshot) -> FlatMachine {
        self.try_fork(snapshot).await.unwrap()
    }

    /// Loads a snapshot, or returns the text of the error.
    pub(crate) async fn try_fork(&self, snapshot: &Snapshot) -> Result<FlatMachine, String> {
        self.try_fork_with(snapshot, Vec::new()).await
    }

    /// Loads a snapshot with these disks, or returns the text of the error.
    pub(crate) async fn try_fork_with(
        &self,
        snapshot: &Snapshot,
        disks: Vec<Disk>,
    ) -> Result<FlatMachine, String> {
        let spec = LoadSpec {
            image: snapshot.image.try_clone().unwrap(),
            memory: MemorySource::Cow(Arc::clone(&snapshot.memory)),
            disks,
            console: self.console(),
        };
        let blank = self.blank().await;
        let doorbell = blank.doorbell();
        let machine = Box::new(blank)
            .load(spec)
            .await
            .map_err(|error| error.to_string())?;
        Ok(FlatMachine { machine, doorbell })
    }
}

impl FlatMachine {
    /// Resumes the paused machine and returns the next ring.
    pub(crate) async fn next_ring(&mut self) -> u32 {
        next_ring(&*self.machine, &mut self.doorbell).await
    }
}

/// Resumes a paused machine and returns the next ring of its guest.
pub(crate) async fn next_ring(
    machine: &dyn Machine,
    doorbell: &mut watch::Receiver<Option<u32>>,
) -> u32 {
    doorbell.mark_unchanged();
    machine.resume().await.unwrap();
    doorbell.changed().await.unwrap();
    doorbell.borrow().unwrap()
}

impl Snapshot {
    /// Reads the machine image.
    pub(crate) fn image_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.image.metadata().unwrap().len()).unwrap()];
        self.image.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Returns the snapshot with another machine image.
    pub(crate) fn with_image(&self, bytes: &[u8]) -> Self {
        let image = tempfile::tempfile().unwrap();
        image.write_all_at(bytes, 0).unwrap();
        Self {
            image,
            memory: Arc::clone(&self.memory),
        }
    }
}
