//! Snapshots with corrupt files.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use nix::unistd::{Whence, lseek};
use serde_json::json;

use crate::rig::{Gateway, wait_until};

const PAGE: u64 = 4096;

/// A corrupt file, and the bytes that repair it.
struct CorruptFile {
    file: File,
    len: u64,
    undo: Vec<(u64, Vec<u8>)>,
}

/// Corrupts a file of a paused sandbox's snapshot, and asserts that wakes fail and the sandbox stays paused. Then repairs
/// the file, and asserts that a request wakes the sandbox.
async fn assert_wake_fails(name: &str, corrupt: fn(&mut CorruptFile)) {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    let before: u64 = sandbox.get(&gateway, "/count").await.ok().value("hits");
    sandbox.pause(&gateway).await;
    let path = gateway.work.snapshot(&sandbox.id).join(name);
    let mut file = CorruptFile::open(&path);
    corrupt(&mut file);
    assert!(!file.undo.is_empty(), "the file is corrupt");

    let reply = sandbox.get(&gateway, "/count").await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.body.contains("could not be woken"), "{}", reply.body);
    assert_eq!(sandbox.state(&gateway).await, "paused");
    let log = gateway.log();
    let named = log.contains(path.to_str().unwrap());
    assert!(named, "the log lacks {}", path.display());
    // A second wake fails as well, and breaks nothing.
    assert_eq!(sandbox.get(&gateway, "/count").await.status, 503);

    file.repair();
    // The back-off of the failed wakes ends first.
    let woken = wait_until("wake after the repair", async || {
        let reply = sandbox.get(&gateway, "/count").await;
        match reply.status {
            503 => Err(reply.body),
            _ => Ok(reply.ok()),
        }
    })
    .await;
    assert_eq!(woken.value::<u64>("hits"), before + 1);
    gateway.finish().await;
}

impl CorruptFile {
    fn open(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Self {
            len: file.metadata().unwrap().len(),
            file,
            undo: Vec::new(),
        }
    }

    /// Saves bytes for [`CorruptFile::repair`].
    fn save(&mut self, at: u64, len: u64) {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        self.undo.push((at, bytes));
    }

    fn flip_bit(&mut self, at: u64) {
        self.save(at, 1);
        let byte = self.undo.last().unwrap().1[0];
        self.file.write_all_at(&[byte ^ 0x10], at).unwrap();
    }

    /// Lists the offsets of pages with data, which are not holes, from `from` on.
    fn data_pages(&self, from: u64) -> Vec<u64> {
        let seek = |at: u64, whence| {
            let offset = lseek(&self.file, i64::try_from(at).unwrap(), whence).ok()?;
            Some(u64::try_from(offset).unwrap())
        };
        let (mut pages, mut at) = (Vec::new(), from);
        while let Some(begin) = seek(at, Whence::SeekData) {
            at = seek(begin, Whence::SeekHole).unwrap();
            pages.extend((begin / PAGE..at.div_ceil(PAGE)).map(|page| page * PAGE));
        }
        pages
    }

    /// Returns the offset of the first page of a layer, which follows a header, two bitmaps, and 8 bytes a page.
    fn pages_offset(&self) -> u64 {
        // The file contains the tables and the pages. The number of pages is a multiple of 32768.
        let pages = (1..)
            .map(|size| size << 15)
            .find(|pages| tables_len(*pages) + pages * PAGE >= self.len)
            .unwrap();
        assert_eq!(tables_len(pages) + pages * PAGE, self.len);
        tables_len(pages)
    }

    fn repair(self) {
        self.file.set_len(self.len).unwrap();
        for (at, bytes) in self.undo.iter().rev() {
            self.file.write_all_at(bytes, *at).unwrap();
        }
    }
}

fn tables_len(pages: u64) -> u64 {
    PAGE + 2 * pages.div_ceil(8).next_multiple_of(PAGE) + (pages * 8).next_multiple_of(PAGE)
}

fn truncate(file: &mut CorruptFile) {
    let lost = (file.len / 2).min(PAGE);
    file.save(file.len - lost, lost);
    file.file.set_len(file.len - lost).unwrap();
}

/// Flips one bit in the middle of a file.
fn flip_middle(file: &mut CorruptFile) {
    file.flip_bit(file.len / 2);
}

/// Flips one bit of a layer's page bitmap.
fn flip_bitmap(file: &mut CorruptFile) {
    file.flip_bit(PAGE);
}

/// Flips one bit in one page of a layer.
fn flip_page(file: &mut CorruptFile) {
    let pages = file.data_pages(file.pages_offset());
    file.flip_bit(pages[pages.len() / 2] + 17);
}

/// Flips one bit in every page of a layer, so that the restored guest needs a corrupt one.
fn flip_every_page(file: &mut CorruptFile) {
    for page in file.data_pages(file.pages_offset()) {
        file.flip_bit(page + 17);
    }
}

#[tokio::test]
async fn truncated_manifest_fails_the_wake() {
    assert_wake_fails("manifest", truncate).await;
}

#[tokio::test]
async fn flipped_bit_in_manifest_fails_the_wake() {
    assert_wake_fails("manifest", flip_middle).await;
}

#[tokio::test]
async fn truncated_machine_image_fails_the_wake() {
    assert_wake_fails("machine", truncate).await;
}

#[tokio::test]
async fn flipped_bit_in_machine_image_fails_the_wake() {
    assert_wake_fails("machine", flip_middle).await;
}

#[tokio::test]
async fn truncated_memory_layer_fails_the_wake() {
    assert_wake_fails("memory", truncate).await;
}

#[tokio::test]
async fn flipped_bit_in_memory_bitmap_fails_the_wake() {
    assert_wake_fails("memory", flip_bitmap).await;
}

#[tokio::test]
async fn flipped_bits_in_memory_pages_fail_the_wake() {
    assert_wake_fails("memory", flip_every_page).await;
}

#[tokio::test]
async fn truncated_disk_layer_fails_the_wake() {
    assert_wake_fails("disk0", truncate).await;
}

#[tokio::test]
async fn flipped_bit_in_disk_layer_fails_the_wake() {
    assert_wake_fails("disk0", flip_page).await;
}
