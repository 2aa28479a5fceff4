//! Objects whose files cannot be read. Specification: "Lifecycle of sandboxes".

use std::{fs, path::Path};

use pool_api::{
    BrokenObject, CreateError, EnterError, FailedPart, IfPaused, Node, PauseCause, PauseError,
    SandboxState, SnapshotScope,
};
use serde_json::Value;

use super::{Kind, Rig, id, spec, wait_for_event};
use crate::durable_file::FAIL_SYNC;

/// Changes a record by its JSON.
fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let mut record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(record.as_object_mut().unwrap());
    fs::write(path, record.to_string()).unwrap();
}

/// The name of a change, and the change of a record.
type Damage = (&'static str, fn(&Path));

fn set(record: &mut serde_json::Map<String, Value>, name: &str, value: impl Into<Value>) {
    record.insert(name.to_owned(), value.into());
}

/// A sandbox that is paused, and the path of its record.
async fn paused(name: &str) -> (Rig, std::path::PathBuf) {
    let rig = Rig::with_data(name).await;
    rig.pause(name).await;
    let record = rig.data("sandboxes").join(name).join("sandbox.json");
    (rig, record)
}

#[tokio::test]
async fn unreadable_record_keeps_the_sandbox() {
    let (rig, record) = paused("a").await;
    let good = fs::read(&record).unwrap();
    let damages: [Damage; 5] = [
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("no JSON", |path| fs::write(path, "{").unwrap()),
        ("a missing field", |path| {
            edit(path, |record| drop(record.remove("epoch")));
        }),
        ("an unknown variant", |path| {
            edit(path, |record| set(record, "keep", "Half"));
        }),
        ("a newer version", |path| {
            edit(path, |record| set(record, "version", 99));
        }),
    ];
    let mut rig = rig;
    for (name, damage) in damages {
        damage(&record);
        rig = rig.crash().await;
        assert!(rig.pool.list().await.is_empty(), "{name}");
        let broken = rig.pool.broken().await;
        assert_eq!(broken.len(), 1, "{name}");
        assert_eq!(broken[0].object, BrokenObject::Sandbox(id("a")));
        assert!(broken[0].reason.contains("record"), "{}", broken[0].reason);
        let woken = rig.pool.enter(&id("a"), IfPaused::Wake).await;
        assert!(
            matches!(
                woken,
                Err(EnterError::Failed {
                    part: FailedPart::Host,
                    ..
                })
            ),
            "{name}: {woken:?}"
        );
        let created = rig.pool.create(spec("a")).await;
        assert!(matches!(created, Err(CreateError::Exists(_))), "{name}");
        assert_eq!(rig.count("snapshots"), 2, "{name}");
        if record.is_dir() {
            fs::remove_dir(&record).unwrap();
        }
        fs::write(&record, &good).unwrap();
        // The next request finds it again.
        assert_eq!(rig.say("a", "read 7").await, "memory", "{name}");
        assert!(rig.pool.broken().await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn record_of_version_1_is_read() {
    let (rig, record) = paused("a").await;
    edit(&record, |record| {
        drop(record.remove("version"));
        set(record, "field of a later program", 1);
    });
    let rig = rig.crash().await;
    assert_eq!(rig.say("a", "read 7").await, "memory");
}

#[tokio::test]
async fn missing_snapshot_keeps_the_sandbox() {
    let (rig, _) = paused("a").await;
    let snapshot = rig.pool.info(&id("a")).await.unwrap().snapshot.unwrap();
    let (path, aside) = (
        rig.data("snapshots").join(snapshot.as_str()),
        rig.dir.path().join("aside"),
    );
    fs::rename(&path, &aside).unwrap();
    let rig = rig.crash().await;
    let woken = rig.pool.enter(&id("a"), IfPaused::Wake).await;
    assert!(
        matches!(
            woken,
            Err(EnterError::Failed {
                part: FailedPart::Snapshot,
                ..
            })
        ),
        "{woken:?}"
    );
    fs::rename(&aside, &path).unwrap();
    assert!(rig.pool.broken().await.is_empty());
    assert_eq!(rig.state("a").await, SandboxState::Paused);
    assert_eq!(rig.say("a", "read 7").await, "memory");
}

#[tokio::test]
async fn killed_broken_sandbox_is_removed() {
    let (rig, record) = paused("a").await;
    fs::write(&record, "{").unwrap();
    let rig = rig.crash().await;
    rig.pool.kill(&id("a")).await.unwrap();
    assert!(rig.pool.broken().await.is_empty());
    assert_eq!(rig.count("sandboxes"), 0);
    rig.create("a").await;
}

#[tokio::test]
async fn unreadable_retained_snapshot_is_kept() {
    let rig = Rig::with_data("a").await;
    let taken = rig.pool.snapshot(&id("a"), SnapshotScope::Full).await;
    let snapshot = taken.unwrap().id;
    rig.pool.kill(&id("a")).await.unwrap();
    let record = rig.data("kept").join(format!("{snapshot}.json"));
    let good = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    let rig = rig.crash().await;
    let broken = rig.pool.broken().await;
    assert_eq!(broken[0].object, BrokenObject::Snapshot(snapshot.clone()));
    assert!(rig.pool.retained_snapshots().await.is_empty());
    // Neither the start nor a later collection removed it.
    rig.create("b").await;
    rig.pool.kill(&id("b")).await.unwrap();
    fs::write(&record, good).unwrap();
    assert!(rig.pool.broken().await.is_empty());
    let retained = rig.pool.retained_snapshots().await;
    assert_eq!(retained, std::slice::from_ref(&snapshot));
    let mut fork = spec("c");
    fork.origin = pool_api::Origin::Snapshot(snapshot);
    rig.pool.create(fork).await.unwrap();
    assert_eq!(rig.say("c", "read 7").await, "memory");
}

#[tokio::test]
async fn unsure_record_keeps_both_snapshots() {
    let (rig, _) = paused("a").await;
    rig.say("a", "write 7 later").await;
    rig.say("a", "disk-write 7 later").await;
    let old = rig.pool.info(&id("a")).await.unwrap();
    let marker = rig.data("sandboxes").join("a").join(FAIL_SYNC);
    fs::write(&marker, "").unwrap();
    let paused = rig
        .pool
        .pause(&id("a"), old.epoch, SnapshotScope::Full)
        .await;
    assert!(
        matches!(paused, Err(PauseError::Failed { .. })),
        "{paused:?}"
    );
    // The guest runs on layers of its own: the snapshot has the others.
    assert_eq!(rig.say("a", "disk-write 7 newest").await, "ok");
    rig.pool.create(spec("b")).await.unwrap();
    rig.pool.kill(&id("b")).await.unwrap();
    assert_eq!(rig.count("snapshots"), 3);
    fs::remove_file(&marker).unwrap();
    // After a crash the record names the snapshot of the pause that failed.
    let rig = rig.crash().await;
    assert_eq!(rig.say("a", "read 7").await, "later");
    assert_eq!(rig.say("a", "disk-read 7").await, "later");
}

#[tokio::test]
async fn write_after_an_unsure_record_settles_it() {
    let (rig, _) = paused("a").await;
    rig.say("a", "write 7 later").await;
    let epoch = rig.pool.info(&id("a")).await.unwrap().epoch;
    let marker = rig.data("sandboxes").join("a").join(FAIL_SYNC);
    fs::write(&marker, "").unwrap();
    let paused = rig.pool.pause(&id("a"), epoch, SnapshotScope::Full).await;
    assert!(paused.is_err());
    fs::remove_file(&marker).unwrap();
    let mut events = rig.pool.events();
    rig.pause("a").await;
    wait_for_event(&mut events, "a", Kind::Paused(PauseCause::Requested)).await;
    // The template, the first snapshot, whose pages it shares, and the last.
    assert_eq!(rig.count("snapshots"), 3);
    let rig = rig.crash().await;
    assert_eq!(rig.say("a", "read 7").await, "later");
}
