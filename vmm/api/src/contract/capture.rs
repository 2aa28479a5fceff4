//! Rows of `Machine::capture`.

use std::fs::File;

use super::{
    files::{DISK_BLOCKS, Snapshot, content, disk, empty, is_paused},
    harness::{Guest, Harness, Kernel},
};
use crate::{CaptureError, CaptureSpec, MachineFiles, page_digest};

pub(super) async fn capture_of_a_running_machine_is_refused(harness: &dyn Harness) {
    let guest = Guest::boot(harness, Kernel::Counting, Vec::new()).await;
    let refused = Snapshot::take(&*guest.machine, 0).await;
    assert!(
        matches!(refused, Err(CaptureError::Refused(_))),
        "{refused:?}"
    );
}

pub(super) async fn capture_leaves_the_machine_paused_and_unchanged(harness: &dyn Harness) {
    let mut guest = Guest::paused(harness).await;
    assert_eq!(guest.step_and_pause().await, 0);
    let first = Snapshot::take(&*guest.machine, 0).await.unwrap();
    assert!(is_paused(&*guest.machine).await);
    let second = Snapshot::take(&*guest.machine, 0).await.unwrap();
    assert_eq!(first.records(), second.records());
    for page in first.pages() {
        assert_eq!(first.page(page), second.page(page), "page {page}");
    }
    assert_eq!(guest.step().await, 1);
}

pub(super) async fn captured_pages_are_those_written_since_the_load(harness: &dyn Harness) {
    let booted = Guest::paused(harness).await;
    let source = Snapshot::take(&*booted.machine, 0).await.unwrap();
    assert!(source.captured.pages > 0);

    let spec = source.load_spec(Vec::new());
    let mut guest = Guest::load(harness, Kernel::Counting, spec).await.unwrap();
    let unchanged = Snapshot::take(&*guest.machine, 0).await.unwrap();
    assert_eq!(unchanged.pages(), Vec::<u64>::new());
    let written = guest.workload.pages();
    for pass in 0..2 {
        assert_eq!(guest.step_and_pause().await, pass);
        let snapshot = Snapshot::take(&*guest.machine, 0).await.unwrap();
        assert_eq!(snapshot.pages(), written);
    }
    // Nothing was written since the last capture, but since the load.
    let again = Snapshot::take(&*guest.machine, 0).await.unwrap();
    assert_eq!(again.pages(), written);
}

pub(super) async fn capture_result_matches_the_files(harness: &dyn Harness) {
    let mut guest = Guest::paused(harness).await;
    guest.step_and_pause().await;
    let snapshot = Snapshot::take(&*guest.machine, 0).await.unwrap();
    let captured = snapshot.captured;
    assert_eq!(captured.image_len, content(&snapshot.image).len() as u64);
    let records = snapshot.records();
    assert_eq!(captured.pages, records.len() as u64);
    let zero = records.iter().filter(|record| record.zero).count();
    assert_eq!(captured.zero_pages, zero as u64);
    assert!(records.is_sorted_by(|a, b| a.number < b.number));
    for record in records {
        let page = snapshot.page(record.number.into());
        assert_eq!(record.digest, page_digest(&page), "page {}", record.number);
        assert_eq!(record.zero, page.iter().all(|byte| *byte == 0));
    }
}

pub(super) async fn full_file_is_no_space_and_changes_nothing(harness: &dyn Harness) {
    let (disk, _) = disk(DISK_BLOCKS);
    let mut guest = Guest::boot(harness, Kernel::CountingWithDisk, vec![disk]).await;
    guest.machine.pause().await.unwrap();
    assert_eq!(guest.step_and_pause().await, 0);
    for full in 0..4 {
        let file = |number| match number == full {
            true => File::options().write(true).open("/dev/full").unwrap(),
            false => empty(),
        };
        let spec = CaptureSpec {
            machine: Some(MachineFiles {
                image: file(0),
                pages: file(1),
                pages_offset: 0,
                page_index: file(2),
            }),
            disk_bitmaps: vec![file(3)],
        };
        let failed = guest.machine.capture(spec).await;
        assert!(
            matches!(failed, Err(CaptureError::NoSpace)),
            "file {full}: {failed:?}"
        );
    }
    assert!(Snapshot::take(&*guest.machine, 1).await.is_ok());
    assert_eq!(guest.step().await, 1);
}
