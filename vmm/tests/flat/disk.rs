//! Disks of the flat guest: layers that are replaced, and a host filesystem that is full.

#![allow(clippy::unwrap_used, reason = "a fixture fails by panicking")]

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::PathBuf,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, inotify, openat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    },
};
use tokio::time::timeout;
use vmm_api::{Disk, DiskLayer, NextLayers, PAGE_SIZE, TopLayer, flat};

use crate::fixture::{Fixture, FlatMachine};

const BLOCKS: u64 = 4;
/// The time for an event; the host may be busy.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// A filesystem of 64 KiB in memory. It is mounted nowhere, so that it ends with its last descriptor.
struct SmallFilesystem(OwnedFd);

/// The file that takes all free space. Dropping it frees the space.
struct Filler(File);

impl SmallFilesystem {
    fn new() -> Self {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, "size", "64k").unwrap();
        fsconfig_create(&context).unwrap();
        let (flags, attributes) = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
        Self(fsmount(&context, flags, attributes).unwrap())
    }

    fn create(&self, name: &str) -> File {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)
            .unwrap()
            .into()
    }

    fn fill(&self) -> Filler {
        let filler = self.create("filler");
        let mut at = 0;
        let error = loop {
            match filler.write_at(&[1; PAGE_SIZE], at) {
                Ok(count) => at += count as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        Filler(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.0.set_len(0).unwrap();
    }
}

fn disk(top: &File) -> Disk {
    Disk {
        size: BLOCKS * PAGE_SIZE as u64,
        base: tempfile::tempfile().unwrap(),
        layers: Vec::new(),
        top: top_layer(top),
    }
}

fn top_layer(file: &File) -> TopLayer {
    TopLayer {
        file: file.try_clone().unwrap(),
        blocks_offset: 0,
    }
}

/// Returns whether a top layer has the block that the guest writes.
fn is_written(top: &File) -> bool {
    let mut block = [0; PAGE_SIZE];
    let read = top.read_at(&mut block, flat::DISK_BLOCK * PAGE_SIZE as u64);
    read.unwrap() == PAGE_SIZE && block.iter().any(|byte| *byte != 0)
}

/// Boots a guest whose one write waits for space.
async fn waiting_guest(fixture: &Fixture, top: &File) -> FlatMachine {
    let mut guest = fixture.boot_with_disk(disk(top)).await;
    guest.machine.pause().await.unwrap();
    // The guest rings after it has notified its disk.
    guest.next_ring().await;
    assert!(!is_written(top));
    guest
}

#[tokio::test]
async fn write_to_a_full_host_waits_for_space() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let filesystem = SmallFilesystem::new();
    let top = filesystem.create("top");
    let filler = filesystem.fill();
    let guest = waiting_guest(&fixture, &top).await;
    let events = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    let path = format!("/proc/self/fd/{}", top.as_raw_fd());
    inotify::add_watch(&events, path, inotify::WatchFlags::MODIFY).unwrap();
    drop(filler);
    let written = tokio::task::spawn_blocking(move || {
        let limit = Timespec::try_from(EVENT_TIMEOUT).unwrap();
        poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&limit)).unwrap()
    });
    assert_eq!(written.await.unwrap(), 1, "the write is not retried");
    assert!(is_written(&top));
    guest.machine.pause().await.unwrap();
    let bitmap = tempfile::tempfile().unwrap();
    fixture
        .capture_with(&guest, vec![bitmap.try_clone().unwrap()])
        .await;
    let mut bits = [0];
    bitmap.read_exact_at(&mut bits, 0).unwrap();
    assert_eq!(bits, [1 << flat::DISK_BLOCK]);
}

#[tokio::test]
async fn waiting_write_survives_pause_capture_and_load() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let filesystem = SmallFilesystem::new();
    let top = filesystem.create("top");
    let filler = filesystem.fill();
    let guest = waiting_guest(&fixture, &top).await;
    let paused = timeout(EVENT_TIMEOUT, guest.machine.pause()).await;
    paused.expect("the pause waits for the write").unwrap();
    let snapshot = fixture
        .capture_with(&guest, vec![tempfile::tempfile().unwrap()])
        .await;
    let killed = timeout(EVENT_TIMEOUT, guest.machine.kill()).await;
    killed.expect("the kill waits for the write");
    drop(filler);
    let next_top = filesystem.create("next");
    let loaded = fixture.try_fork_with(&snapshot, vec![disk(&next_top)]);
    let loaded = loaded.await.unwrap();
    assert!(is_written(&next_top), "the load drops the write");
    loaded.machine.kill().await;
}

#[tokio::test]
async fn kill_during_a_waiting_write_ends_the_monitor() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let filesystem = SmallFilesystem::new();
    let top = filesystem.create("top");
    let _filler = filesystem.fill();
    let guest = waiting_guest(&fixture, &top).await;
    let killed = timeout(EVENT_TIMEOUT, guest.machine.kill()).await;
    killed.expect("the kill waits for the write");
}

#[tokio::test]
async fn replaced_disk_layers_are_closed() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let create = |name: &str| File::create_new(dir.path().join(name)).unwrap();
    let open = |name: &str| {
        let mut options = File::options();
        options.read(true).write(true).open(dir.path().join(name))
    };
    for name in ["first", "second", "third", "folded"] {
        create(name).set_len(PAGE_SIZE as u64).unwrap();
    }
    let guest = fixture.boot_with_disk(disk(&open("first").unwrap())).await;
    guest.machine.pause().await.unwrap();
    let next = |top: &str, sealed| {
        vec![NextLayers {
            top: top_layer(&open(top).unwrap()),
            sealed,
        }]
    };
    guest.machine.advance(next("second", None)).await.unwrap();
    let held = open_files(guest.machine.pid(), dir.path());
    assert_eq!(held, ["first", "second"]);
    let folded = DiskLayer {
        file: open("folded").unwrap(),
        bitmap_offset: 0,
        blocks_offset: PAGE_SIZE as u64,
    };
    let next = next("third", Some(vec![folded]));
    guest.machine.advance(next).await.unwrap();
    let held = open_files(guest.machine.pid(), dir.path());
    assert_eq!(held, ["folded", "third"]);
}

/// Lists the files of a directory that a process has open.
fn open_files(pid: u32, dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|target: PathBuf| Some(target.strip_prefix(dir).ok()?.to_owned()))
        .map(|name| name.display().to_string())
        .collect();
    names.sort();
    names
}
