//! Snapshots whose files are not what they were.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use nix::unistd::{Whence, lseek};
use serde_json::json;

use crate::rig::Gateway;

const PAGE: u64 = 4096;

/// A file that is not what it was, and what it takes to make it so again.
struct Damaged {
    file: File,
    len: u64,
    undo: Vec<(u64, Vec<u8>)>,
}

/// Damages a file of a paused sandbox's snapshot, sees that it does not wake and stays paused, and that it wakes again
/// when the file is as it was.
async fn refuses(name: &str, damage: fn(&mut Damaged)) {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    let before: u64 = sandbox.get(&gateway, "/count").await.ok().value("hits");
    sandbox.pause(&gateway).await;
    let path = gateway.work.snapshot(&sandbox.id).join(name);
    let mut damaged = Damaged::open(&path);
    damage(&mut damaged);
    assert!(!damaged.undo.is_empty(), "something was damaged");

    let reply = sandbox.get(&gateway, "/count").await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.body.contains("could not be woken"), "{}", reply.body);
    assert_eq!(sandbox.state(&gateway).await, "paused");
    let log = gateway.log();
    let named = log.contains(path.to_str().unwrap());
    assert!(named, "the log names {}", path.display());
    // And once more: the first failure has broken nothing.
    assert_eq!(sandbox.get(&gateway, "/count").await.status, 503);

    damaged.repair();
    let woken = sandbox.get(&gateway, "/count").await.ok();
    assert_eq!(woken.value::<u64>("hits"), before + 1);
    gateway.finish().await;
}

impl Damaged {
    fn open(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Self {
            len: file.metadata().unwrap().len(),
            file,
            undo: Vec::new(),
        }
    }

    /// Keeps what is there now.
    fn keep(&mut self, at: u64, len: u64) {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        self.undo.push((at, bytes));
    }

    fn flip(&mut self, at: u64) {
        self.keep(at, 1);
        let byte = self.undo.last().unwrap().1[0];
        self.file.write_all_at(&[byte ^ 0x10], at).unwrap();
    }

    /// Pages of the file from `from` on that hold data and are no holes.
    fn data_pages(&self, from: u64) -> Vec<u64> {
        let seek = |at: u64, whence| {
            let found = lseek(&self.file, i64::try_from(at).unwrap(), whence).ok()?;
            Some(u64::try_from(found).unwrap())
        };
        let (mut pages, mut at) = (Vec::new(), from);
        while let Some(begin) = seek(at, Whence::SeekData) {
            at = seek(begin, Whence::SeekHole).unwrap();
            pages.extend((begin / PAGE..at.div_ceil(PAGE)).map(|page| page * PAGE));
        }
        pages
    }

    /// Where the pages of a layer begin: a header, two bitmaps, and 8 bytes a page come before them.
    fn tables(&self) -> u64 {
        // The file is as long as the tables and the pages together; the former are a little more than eight bytes a page.
        let pages = (1..)
            .map(|size| size << 15)
            .find(|pages| tables_of(*pages) + pages * PAGE >= self.len)
            .unwrap();
        assert_eq!(tables_of(pages) + pages * PAGE, self.len);
        tables_of(pages)
    }

    fn repair(self) {
        self.file.set_len(self.len).unwrap();
        for (at, bytes) in self.undo.iter().rev() {
            self.file.write_all_at(bytes, *at).unwrap();
        }
    }
}

fn tables_of(pages: u64) -> u64 {
    PAGE + 2 * pages.div_ceil(8).next_multiple_of(PAGE) + (pages * 8).next_multiple_of(PAGE)
}

fn cut(damaged: &mut Damaged) {
    let lost = (damaged.len / 2).min(PAGE);
    damaged.keep(damaged.len - lost, lost);
    damaged.file.set_len(damaged.len - lost).unwrap();
}

/// One bit in the middle.
fn flip(damaged: &mut Damaged) {
    damaged.flip(damaged.len / 2);
}

/// One bit of a layer's bitmap of pages.
fn flip_table(damaged: &mut Damaged) {
    damaged.flip(PAGE);
}

/// One bit of one page of a layer.
fn flip_page(damaged: &mut Damaged) {
    let pages = damaged.data_pages(damaged.tables());
    damaged.flip(pages[pages.len() / 2] + 17);
}

/// One bit of every page of a layer: whichever a waking guest asks for.
fn flip_pages(damaged: &mut Damaged) {
    for page in damaged.data_pages(damaged.tables()) {
        damaged.flip(page + 17);
    }
}

#[tokio::test]
async fn a_manifest_cut_short_is_refused() {
    refuses("manifest", cut).await;
}

#[tokio::test]
async fn a_manifest_with_a_flipped_bit_is_refused() {
    refuses("manifest", flip).await;
}

#[tokio::test]
async fn a_machine_image_cut_short_is_refused() {
    refuses("machine", cut).await;
}

#[tokio::test]
async fn a_machine_image_with_a_flipped_bit_is_refused() {
    refuses("machine", flip).await;
}

#[tokio::test]
async fn a_memory_layer_cut_short_is_refused() {
    refuses("memory", cut).await;
}

#[tokio::test]
async fn a_memory_layer_with_a_flipped_bit_in_its_tables_is_refused() {
    refuses("memory", flip_table).await;
}

#[tokio::test]
async fn a_memory_layer_with_flipped_bits_in_its_pages_is_refused() {
    refuses("memory", flip_pages).await;
}

#[tokio::test]
async fn a_disk_layer_cut_short_is_refused() {
    refuses("disk0", cut).await;
}

#[tokio::test]
async fn a_disk_layer_with_a_flipped_bit_is_refused() {
    refuses("disk0", flip_page).await;
}
