//! Rows of `Hypervisor` and `Blank`.

use std::{os::fd::OwnedFd, sync::Arc};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    files::{DISK_BLOCKS, MEMORY, Snapshot, content, disk, empty, file, is_paused},
    harness::{Guest, Harness, Kernel, boot},
};
use crate::{
    BlankSpec, BootError, BootSpec, LoadError, LoadSpec, MemoryRegion, MemorySource, Pager,
    SpawnError,
};

pub(super) async fn blank_out_of_bounds_is_refused(harness: &dyn Harness) {
    let changes: [fn(&mut BlankSpec); 5] = [
        |spec| spec.vcpus = 0,
        |spec| spec.vcpus = 33,
        |spec| spec.memory = 0,
        |spec| spec.memory += 4096,
        |spec| spec.memory = 2 << 40,
    ];
    for change in changes {
        let mut spec = harness.blank_spec();
        change(&mut spec);
        let refused = harness.hypervisor().blank(spec.clone()).await;
        assert!(
            matches!(refused, Err(SpawnError::Prepare(_))),
            "{spec:?}: {refused:?}"
        );
    }
}

pub(super) async fn blank_without_run_dir_fails(harness: &dyn Harness) {
    let mut spec = harness.blank_spec();
    spec.run_dir.push("missing");
    let failed = harness.hypervisor().blank(spec).await;
    assert!(
        matches!(failed, Err(SpawnError::Spawn { .. })),
        "{failed:?}"
    );
}

pub(super) async fn dropped_blank_ends_its_process(harness: &dyn Harness) {
    let (blank, _) = harness.blank(Kernel::Counting).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(blank.pid()).unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    drop(blank);
    let ended = tokio::task::spawn_blocking(move || {
        let timeout = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).unwrap()
    });
    assert_eq!(ended.await.unwrap(), 1);
}

pub(super) async fn booted_machine_is_running(harness: &dyn Harness) {
    // `ready` returns only if the guest executes without a resume.
    let guest = Guest::boot(harness, Kernel::Counting, Vec::new()).await;
    assert!(!is_paused(&*guest.machine).await);
}

pub(super) async fn invalid_kernel_is_refused(harness: &dyn Harness) {
    let (blank, _) = harness.blank(Kernel::Counting).await;
    let spec = BootSpec {
        kernel: empty(),
        command_line: String::new(),
        disks: Vec::new(),
        console: empty(),
    };
    let refused = blank.boot(spec).await;
    assert!(matches!(refused, Err(BootError::Refused(_))), "{refused:?}");
}

pub(super) async fn loaded_machine_is_paused_and_continues(harness: &dyn Harness) {
    let mut guest = Guest::paused(harness).await;
    assert_eq!(guest.step_and_pause().await, 0);
    let snapshot = Snapshot::take(&*guest.machine, 0).await.unwrap();
    guest.machine.kill().await;

    let spec = snapshot.load_spec(Vec::new());
    let mut guest = Guest::load(harness, Kernel::Counting, spec).await.unwrap();
    assert!(is_paused(&*guest.machine).await);
    assert_eq!(guest.step().await, 1);
}

pub(super) async fn loads_of_one_source_share_no_writes(harness: &dyn Harness) {
    let snapshot = snapshot(harness).await;
    let load = || Guest::load(harness, Kernel::Counting, snapshot.load_spec(Vec::new()));
    let (mut first, mut second) = (load().await.unwrap(), load().await.unwrap());
    for pass in 0..3 {
        assert_eq!(first.step_and_pause().await, pass);
    }
    assert_eq!(second.step().await, 0);
    assert_eq!(load().await.unwrap().step().await, 0);
}

pub(super) async fn altered_or_truncated_image_is_refused(harness: &dyn Harness) {
    let snapshot = snapshot(harness).await;
    let image = content(&snapshot.image);
    let last = image.len() - 1;
    let mut altered = image.clone();
    altered[last] ^= 0x10;
    for bad in [&altered, &image[..last], &image[..0]] {
        let spec = LoadSpec {
            image: file(bad),
            ..snapshot.load_spec(Vec::new())
        };
        let refused = Guest::load(harness, Kernel::Counting, spec).await;
        assert!(matches!(refused, Err(LoadError::Image(_))), "{refused:?}");
    }
}

pub(super) async fn image_of_another_shape_is_refused(harness: &dyn Harness) {
    let snapshot = snapshot(harness).await;
    let with_disk = snapshot.load_spec(vec![disk(DISK_BLOCKS).0]);
    let refused = Guest::load(harness, Kernel::Counting, with_disk).await;
    assert!(matches!(refused, Err(LoadError::Image(_))), "{refused:?}");

    let changes: [fn(&mut BlankSpec); 2] = [|spec| spec.vcpus = 2, |spec| spec.memory = 2 * MEMORY];
    for change in changes {
        let mut shape = harness.blank_spec();
        change(&mut shape);
        let memory = empty();
        memory.set_len(shape.memory).unwrap();
        let spec = LoadSpec {
            memory: MemorySource::Cow(Arc::new(memory.into())),
            ..snapshot.load_spec(Vec::new())
        };
        let blank = harness.hypervisor().blank(shape.clone()).await.unwrap();
        let refused = blank.load(spec).await;
        assert!(
            matches!(refused, Err(LoadError::Image(_))),
            "{shape:?}: {refused:?}"
        );
    }
}

pub(super) async fn memory_file_of_another_size_is_refused(harness: &dyn Harness) {
    let snapshot = snapshot(harness).await;
    let memory = empty();
    memory.set_len(MEMORY / 2).unwrap();
    let spec = LoadSpec {
        memory: MemorySource::Cow(Arc::new(memory.into())),
        ..snapshot.load_spec(Vec::new())
    };
    let refused = Guest::load(harness, Kernel::Counting, spec).await;
    assert!(matches!(refused, Err(LoadError::Refused(_))), "{refused:?}");
}

pub(super) async fn failing_pager_fails_the_load(harness: &dyn Harness) {
    let snapshot = snapshot(harness).await;
    let spec = LoadSpec {
        memory: MemorySource::Paged(Arc::new(FailingPager)),
        ..snapshot.load_spec(Vec::new())
    };
    let failed = Guest::load(harness, Kernel::Counting, spec).await;
    assert!(matches!(failed, Err(LoadError::Pager(_))), "{failed:?}");
}

pub(super) async fn load_report_exists_for_loaded_machines_only(harness: &dyn Harness) {
    let (blank, _workload) = harness.blank(Kernel::Counting).await;
    let booted = boot(harness, blank, Kernel::Counting, Vec::new()).await;
    assert_eq!(booted.unwrap().load_report(), None);
    let spec = snapshot(harness).await.load_spec(Vec::new());
    let loaded = Guest::load(harness, Kernel::Counting, spec).await.unwrap();
    let report = loaded.machine.load_report().unwrap();
    assert!(!report.image.is_zero() && report.prefetch.is_zero());
}

/// Captures a counting guest before its first step.
async fn snapshot(harness: &dyn Harness) -> Snapshot {
    let guest = Guest::paused(harness).await;
    Snapshot::take(&*guest.machine, 0).await.unwrap()
}

/// Pager that fails to attach.
#[derive(Debug)]
struct FailingPager;

impl Pager for FailingPager {
    fn attach(
        &self,
        _: OwnedFd,
        region: MemoryRegion,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        assert_eq!(region.len, MEMORY);
        Err("this pager fails".into())
    }
}
