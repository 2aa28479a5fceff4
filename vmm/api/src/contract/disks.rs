//! Rows of disk bitmaps and `Machine::advance`.

use std::fs::File;

use super::{
    files::{DISK_BLOCKS, Snapshot, bitmaps_only, block, content, disk, empty, top_layer},
    harness::{Guest, Harness, Kernel},
};
use crate::{CaptureError, Captured, Disk, DiskLayer, MachineError, NextLayers};

pub(super) async fn disk_only_capture_writes_bitmaps_only(harness: &dyn Harness) {
    let (mut guest, _) = guest(harness).await;
    guest.step_and_pause().await;
    let bitmap = empty();
    let spec = bitmaps_only(std::slice::from_ref(&bitmap));
    let captured = guest.machine.capture(spec).await.unwrap();
    assert_eq!(captured, Captured::default());
    assert_eq!(content(&bitmap), bitmap_of(guest.workload.block()));
}

pub(super) async fn wrong_bitmap_count_is_refused(harness: &dyn Harness) {
    let (guest, _) = guest(harness).await;
    for count in [0, 2] {
        let bitmaps: Vec<File> = (0..count).map(|_| empty()).collect();
        let refused = guest.machine.capture(bitmaps_only(&bitmaps)).await;
        assert!(
            matches!(refused, Err(CaptureError::Refused(_))),
            "{count}: {refused:?}"
        );
    }
}

pub(super) async fn bitmap_marks_the_written_block(harness: &dyn Harness) {
    let (mut guest, top) = guest(harness).await;
    let before = Snapshot::take(&*guest.machine, 1).await.unwrap();
    assert!(content(&before.bitmaps[0]).iter().all(|byte| *byte == 0));
    guest.step_and_pause().await;
    let after = Snapshot::take(&*guest.machine, 1).await.unwrap();
    let written = guest.workload.block();
    assert_eq!(content(&after.bitmaps[0]), bitmap_of(written));
    assert!(block(&top, written).iter().any(|byte| *byte != 0));
}

pub(super) async fn advance_directs_writes_to_the_new_top(harness: &dyn Harness) {
    let (mut guest, first) = guest(harness).await;
    let written = guest.workload.block();
    guest.step_and_pause().await;
    let sealed = Snapshot::take(&*guest.machine, 1).await.unwrap();
    let second = empty();
    guest.machine.advance(vec![next(&second)]).await.unwrap();

    let snapshot = Snapshot::take(&*guest.machine, 1).await.unwrap();
    assert!(content(&snapshot.bitmaps[0]).iter().all(|byte| *byte == 0));
    let before = block(&first, written);
    assert_eq!(guest.step_and_pause().await, 1);
    assert_eq!(block(&first, written), before, "the sealed layer changed");
    assert_ne!(block(&second, written), before);

    // The layers can be loaded again, the sealed one below a new top.
    let snapshot = Snapshot::take(&*guest.machine, 1).await.unwrap();
    assert_eq!(content(&snapshot.bitmaps[0]), bitmap_of(written));
    let (disk, third) = disk(DISK_BLOCKS);
    // The bitmap of a layer precedes its blocks.
    std::os::unix::fs::FileExt::write_all_at(&first, &content(&sealed.bitmaps[0]), 0).unwrap();
    let disk = Disk {
        layers: vec![layer(&first)],
        ..disk
    };
    let spec = snapshot.load_spec(vec![disk]);
    let mut guest = Guest::load(harness, Kernel::CountingWithDisk, spec)
        .await
        .unwrap();
    assert_eq!(guest.step().await, 2);
    assert!(block(&third, written).iter().any(|byte| *byte != 0));
}

pub(super) async fn advance_of_a_running_machine_is_refused(harness: &dyn Harness) {
    let (guest, _) = guest(harness).await;
    guest.machine.resume().await.unwrap();
    let refused = guest.machine.advance(vec![next(&empty())]).await;
    assert!(
        matches!(refused, Err(MachineError::Refused(_))),
        "{refused:?}"
    );
}

pub(super) async fn wrong_top_count_is_refused_and_changes_nothing(harness: &dyn Harness) {
    let (mut guest, top) = guest(harness).await;
    for count in [0, 2] {
        let disks = (0..count).map(|_| next(&empty())).collect();
        let refused = guest.machine.advance(disks).await;
        assert!(
            matches!(refused, Err(MachineError::Refused(_))),
            "{count}: {refused:?}"
        );
    }
    guest.step_and_pause().await;
    let written = block(&top, guest.workload.block());
    assert!(written.iter().any(|byte| *byte != 0));
}

pub(super) async fn advance_to_folded_layers_directs_writes_to_the_top(harness: &dyn Harness) {
    let (mut guest, first) = guest(harness).await;
    let written = guest.workload.block();
    guest.step_and_pause().await;
    let (folded, second) = (empty(), empty());
    folded.set_len(super::files::TOP_OFFSET).unwrap();
    let disks = vec![NextLayers {
        sealed: Some(vec![layer(&folded)]),
        ..next(&second)
    }];
    let before = block(&first, written);
    guest.machine.advance(disks).await.unwrap();
    assert_eq!(guest.step_and_pause().await, 1);
    assert_eq!(block(&first, written), before, "the old layer changed");
    assert_ne!(block(&second, written), before);
    let snapshot = Snapshot::take(&*guest.machine, 1).await.unwrap();
    assert_eq!(content(&snapshot.bitmaps[0]), bitmap_of(written));
}

pub(super) async fn advance_to_an_unreadable_layer_changes_nothing(harness: &dyn Harness) {
    let (mut guest, top) = guest(harness).await;
    let disks = vec![NextLayers {
        sealed: Some(vec![layer(&empty())]),
        ..next(&empty())
    }];
    let refused = guest.machine.advance(disks).await;
    assert!(
        matches!(refused, Err(MachineError::Refused(_))),
        "{refused:?}"
    );
    guest.step_and_pause().await;
    let written = block(&top, guest.workload.block());
    assert!(written.iter().any(|byte| *byte != 0));
}

/// Keeps the present layers below a new top layer.
fn next(top: &File) -> NextLayers {
    NextLayers {
        top: top_layer(top),
        sealed: None,
    }
}

/// A sealed layer whose bitmap is at the start of the file.
fn layer(file: &File) -> DiskLayer {
    DiskLayer {
        file: file.try_clone().unwrap(),
        bitmap_offset: 0,
        blocks_offset: super::files::TOP_OFFSET,
    }
}

/// Boots a guest with a disk and pauses it; returns the top layer's file as well.
async fn guest(harness: &dyn Harness) -> (Guest, File) {
    let (disk, top) = disk(DISK_BLOCKS);
    let guest = Guest::boot(harness, Kernel::CountingWithDisk, vec![disk]).await;
    guest.machine.pause().await.unwrap();
    (guest, top)
}

/// The bitmap of a layer with one block.
fn bitmap_of(block: u64) -> Vec<u8> {
    let mut bitmap = vec![0; usize::try_from(DISK_BLOCKS.div_ceil(8)).unwrap()];
    bitmap[usize::try_from(block / 8).unwrap()] = 1 << (block % 8);
    bitmap
}
