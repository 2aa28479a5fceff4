//! Snapshots whose files are not what they were.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::rig::{Gateway, Sandbox};

/// Damages a file of a paused sandbox's snapshot, sees that it does not wake and stays paused, and that it wakes again
/// when the file is as it was.
async fn refuses(name: &str, damage: fn(&mut Vec<u8>)) {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    let before = sandbox
        .get(&gateway, "/count")
        .await
        .ok()
        .value::<u64>("hits");
    sandbox.pause(&gateway).await;
    let path = file(&gateway, name);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damage(&mut damaged);
    assert_ne!(damaged, whole);
    fs::write(&path, damaged).unwrap();

    let reply = sandbox.get(&gateway, "/count").await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.body.contains("could not be woken"), "{}", reply.body);
    assert_eq!(sandbox.state(&gateway).await, "paused");
    let log = gateway.log();
    let named = log
        .lines()
        .any(|line| line.contains(path.to_str().unwrap()));
    assert!(named, "the log names {}", path.display());
    // And once more: the first failure has broken nothing.
    assert_eq!(sandbox.get(&gateway, "/count").await.status, 503);

    fs::write(&path, whole).unwrap();
    works(&gateway, &sandbox, before).await;
    gateway.finish().await;
}

async fn works(gateway: &Gateway, sandbox: &Sandbox, before: u64) {
    let woken = sandbox.get(gateway, "/count").await.ok();
    assert_eq!(woken.value::<u64>("hits"), before + 1);
}

/// A file of the only snapshot that is not the template's.
fn file(gateway: &Gateway, name: &str) -> PathBuf {
    let snapshots = gateway.work.snapshots();
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    snapshots[0].join(name)
}

fn cut(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 2);
}

/// One bit, in the last byte that is not zero: holes are everywhere, and data is at the end.
fn flip(bytes: &mut Vec<u8>) {
    let at = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[at] ^= 1;
}

/// One bit of a layer's tables, which come behind its header.
fn flip_table(bytes: &mut Vec<u8>) {
    let at = 4096 + bytes[4096..].iter().position(|byte| *byte != 0).unwrap();
    bytes[at] ^= 1;
}

/// One bit in each page of a layer of 512 MiB: whichever a waking guest asks for.
fn flip_pages(bytes: &mut Vec<u8>) {
    const PAGES: usize = (512 << 20) / 4096;
    let tables = 4096 + (2 * PAGES / 8) + PAGES * 8;
    for page in bytes[tables..].chunks_mut(4096) {
        if let Some(byte) = page.iter_mut().find(|byte| **byte != 0) {
            *byte ^= 1;
        }
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
async fn a_memory_layer_with_a_flipped_bit_is_refused() {
    refuses("memory", flip_table).await;
}

#[tokio::test]
async fn a_memory_layer_whose_pages_have_flipped_bits_is_refused() {
    refuses("memory", flip_pages).await;
}

#[tokio::test]
async fn a_disk_layer_cut_short_is_refused() {
    refuses("disk0", cut).await;
}

#[tokio::test]
async fn a_disk_layer_with_a_flipped_bit_is_refused() {
    refuses("disk0", flip).await;
}
