//! Guests for the tests of this folder, on this machine's KVM.

#![allow(clippy::unwrap_used, reason = "a rig fails by panicking")]

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
use vmm_api::{
    BlankSpec, BootSpec, CaptureSpec, Kvm, LoadSpec, Machine, MachineFiles, MemorySource, Monitor,
    PageRecord, Process, flat,
};

const MEMORY: u64 = 16 << 20;

/// Makes monitors, each with a directory of its own.
#[derive(Debug)]
pub(crate) struct Rig {
    kvm: Kvm,
    dir: TempDir,
    count: AtomicU32,
}

/// A machine in files.
#[derive(Debug)]
pub(crate) struct Snapshot {
    image: File,
    memory: Arc<OwnedFd>,
    index: File,
}

impl Rig {
    /// `None`, and loudly so, on a machine without KVM.
    pub(crate) fn new() -> Option<Self> {
        if !Path::new("/dev/kvm").exists() {
            eprintln!("SKIPPED: this machine has no /dev/kvm");
            return None;
        }
        let kvm = Kvm::new(env!("CARGO_BIN_EXE_catnap-vmm")).unwrap();
        Some(Self {
            kvm,
            dir: tempfile::tempdir().unwrap(),
            count: AtomicU32::new(0),
        })
    }

    async fn blank(&self) -> Monitor {
        let run_dir = self
            .dir
            .path()
            .join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&run_dir).unwrap();
        self.kvm
            .monitor(BlankSpec {
                vcpus: 1,
                memory: MEMORY,
                run_dir,
            })
            .await
            .unwrap()
    }

    fn console(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("console"))
            .unwrap()
    }

    /// A flat guest that has just said that it is ready.
    pub(crate) async fn boot(&self, pages: u32) -> Process {
        let machine = self.boot_image(&flat::kernel(pages)).await;
        assert_eq!(heard(&machine).await, flat::READY);
        machine
    }

    /// A guest of this kernel.
    pub(crate) async fn boot_image(&self, image: &[u8]) -> Process {
        let kernel = tempfile::tempfile().unwrap();
        kernel.write_all_at(image, 0).unwrap();
        let spec = BootSpec {
            kernel,
            command_line: String::new(),
            disks: Vec::new(),
            console: self.console(),
        };
        self.blank().await.boot(spec).await.unwrap()
    }

    /// Writes a paused machine down.
    pub(crate) async fn capture(&self, machine: &Process) -> Snapshot {
        let memory = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(MEMORY).unwrap();
        let (image, index) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let spec = CaptureSpec {
            machine: Some(MachineFiles {
                image: image.try_clone().unwrap(),
                pages: memory.try_clone().unwrap(),
                pages_offset: 0,
                page_index: index.try_clone().unwrap(),
            }),
            disk_bitmaps: Vec::new(),
        };
        machine.capture(spec).await.unwrap();
        Snapshot {
            image,
            memory: Arc::new(memory.into()),
            index,
        }
    }

    /// A machine out of a snapshot that holds all of its memory; paused.
    pub(crate) async fn fork(&self, snapshot: &Snapshot) -> Process {
        self.try_fork(snapshot).await.unwrap()
    }

    /// The same, or why not.
    pub(crate) async fn try_fork(&self, snapshot: &Snapshot) -> Result<Process, String> {
        let spec = LoadSpec {
            image: snapshot.image.try_clone().unwrap(),
            memory: MemorySource::Cow(Arc::clone(&snapshot.memory)),
            disks: Vec::new(),
            console: self.console(),
        };
        self.blank()
            .await
            .load(spec)
            .await
            .map_err(|error| error.to_string())
    }
}

impl Snapshot {
    /// Numbers of the pages it holds.
    pub(crate) fn pages(&self) -> Vec<u64> {
        let mut bytes = vec![0; usize::try_from(self.index.metadata().unwrap().len()).unwrap()];
        self.index.read_exact_at(&mut bytes, 0).unwrap();
        let (records, rest) = bytes.as_chunks::<{ PageRecord::SIZE }>();
        assert!(rest.is_empty());
        records
            .iter()
            .map(|record| u64::from(PageRecord::decode(record).unwrap().number))
            .collect()
    }

    /// The machine image's bytes.
    pub(crate) fn image_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.image.metadata().unwrap().len()).unwrap()];
        self.image.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// The same snapshot with another image.
    pub(crate) fn with_image(&self, bytes: &[u8]) -> Self {
        let image = tempfile::tempfile().unwrap();
        image.write_all_at(bytes, 0).unwrap();
        Self {
            image,
            memory: Arc::clone(&self.memory),
            index: self.index.try_clone().unwrap(),
        }
    }
}

/// Lets a paused flat guest go on: what it rings next.
pub(crate) async fn ring(machine: &Process) -> u32 {
    let mut doorbell = machine.doorbell();
    doorbell.mark_unchanged();
    machine.resume().await.unwrap();
    doorbell.changed().await.unwrap();
    doorbell.borrow().unwrap()
}

async fn heard(machine: &Process) -> u32 {
    let mut doorbell = machine.doorbell();
    let heard = doorbell.wait_for(Option::is_some).await.unwrap();
    heard.unwrap()
}
