//! Pauses and snapshots without memory. Specification: "Lifecycle of sandboxes".

use pool_api::{
    EnterError, Epoch, IfPaused, Node, Origin, PauseError, ResumeError, SandboxState,
    SnapshotError, SnapshotScope, Start,
};
use vmm_api::fake::Fault;

use super::{Kind, Rig, id, spec, try_say, wait_for_event};

#[tokio::test]
async fn disk_only_pause_boots_with_the_same_identity() {
    let rig = Rig::with_data("a").await;
    rig.pause_scope("a", SnapshotScope::DiskOnly).await;
    let info = rig.pool.info(&id("a")).await.unwrap();
    assert_eq!(
        (info.state, info.scope),
        (SandboxState::Paused, SnapshotScope::DiskOnly)
    );
    assert_eq!(rig.fake.counts().live, 0);
    // A request does not wake it, also after a restart of the pool.
    let rig = rig.crash().await;
    let entered = rig.pool.enter(&id("a"), IfPaused::Wake).await;
    assert!(matches!(entered, Err(EnterError::Paused(_))), "{entered:?}");
    let before = rig.fake.counts();
    let woken = rig
        .pool
        .resume(&id("a"), SnapshotScope::Full)
        .await
        .unwrap();
    assert_eq!(woken.state, SandboxState::Running);
    assert_eq!(woken.epoch, Epoch(3));
    let after = rig.fake.counts();
    assert_eq!(
        (after.boots - before.boots, after.loads - before.loads),
        (1, 0)
    );
    assert_eq!(rig.say("a", "read 7").await, "");
    assert_eq!(rig.say("a", "disk-read 7").await, "disk");
    let init = rig.fake.inits().pop().unwrap();
    assert_eq!(init["accessToken"], "token of a");
    assert_eq!(
        (&init["sandboxId"], &init["hostname"]),
        (&"a".into(), &"a".into())
    );
    assert_eq!(init["envVars"]["COLOUR"], "blue");
    assert!(
        init.get("machineId").is_none(),
        "its machine id is on its disk"
    );
    // The next pause captures memory again.
    rig.say("a", "write 8 new").await;
    rig.pause("a").await;
    assert_eq!(
        rig.pool.info(&id("a")).await.unwrap().scope,
        SnapshotScope::Full
    );
    assert_eq!(rig.say("a", "read 8").await, "new");
    assert_eq!(rig.say("a", "disk-read 7").await, "disk");
}

#[tokio::test]
async fn boot_from_full_snapshot_writes_back_first() {
    let rig = Rig::with_data("a").await;
    rig.pause("a").await;
    let before = rig.fake.counts();
    rig.pool
        .resume(&id("a"), SnapshotScope::DiskOnly)
        .await
        .unwrap();
    let after = rig.fake.counts();
    assert_eq!(after.boots, before.boots + 1);
    // The memory was restored once to write the page cache back.
    assert_eq!(
        (after.loads - before.loads, after.captures - before.captures),
        (1, 1)
    );
    assert_eq!(rig.say("a", "read 7").await, "");
    assert_eq!(rig.say("a", "disk-read 7").await, "disk");
    let again = rig.pool.resume(&id("a"), SnapshotScope::DiskOnly).await;
    assert!(matches!(again, Err(ResumeError::AlreadyRunning(_))));
    // The next wake is a restore.
    rig.pause("a").await;
    let lease = rig.enter("a").await;
    assert_eq!(lease.wake().unwrap().start, Start::Restore);
}

#[tokio::test]
async fn failed_write_back_boots_from_the_old_disk() {
    let rig = Rig::with_data("a").await;
    for fault in [Fault::Load, Fault::Freeze, Fault::Capture] {
        rig.pause("a").await;
        let before = rig.fake.counts();
        rig.fake.fail_next(fault);
        rig.pool
            .resume(&id("a"), SnapshotScope::DiskOnly)
            .await
            .unwrap();
        let after = rig.fake.counts();
        assert_eq!(
            (after.boots - before.boots, after.live),
            (1, 1),
            "{fault:?}"
        );
        assert_eq!(rig.say("a", "disk-read 7").await, "disk");
    }
}

#[tokio::test]
async fn resume_during_pause_boots_when_asked() {
    let rig = Rig::with_data("a").await;
    let before = rig.fake.counts();
    for (scope, wake_scope) in [
        (SnapshotScope::Full, SnapshotScope::DiskOnly),
        (SnapshotScope::DiskOnly, SnapshotScope::Full),
    ] {
        let captures = rig.fake.counts().captures;
        let epoch = rig.pool.info(&id("a")).await.unwrap().epoch;
        rig.fake.hold_captures();
        let pool = std::sync::Arc::clone(&rig.pool);
        let pause = tokio::spawn(async move { pool.pause(&id("a"), epoch, scope).await });
        rig.fake.captures_begun(captures + 1).await;
        if scope == SnapshotScope::DiskOnly {
            // Its snapshot will have no memory to wake from.
            let entered = rig.pool.enter(&id("a"), IfPaused::Wake).await;
            assert!(matches!(entered, Err(EnterError::Paused(_))));
        }
        let (name, mut events) = (id("a"), rig.pool.events());
        let mut resume = std::pin::pin!(rig.pool.resume(&name, wake_scope));
        assert!(futures::poll!(&mut resume).is_pending());
        rig.fake.release_captures();
        resume.await.unwrap();
        pause.await.unwrap().unwrap();
        wait_for_event(&mut events, "a", Kind::Started).await;
    }
    assert_eq!(rig.fake.counts().boots, before.boots + 2);
    assert_eq!(rig.say("a", "disk-read 7").await, "disk");
}

#[tokio::test]
async fn failed_disk_only_capture_thaws_the_filesystem() {
    let rig = Rig::with_data("a").await;
    for fault in [Fault::Freeze, Fault::Capture, Fault::Space] {
        rig.fake.fail_next(fault);
        let epoch = rig.pool.info(&id("a")).await.unwrap().epoch;
        let paused = rig
            .pool
            .pause(&id("a"), epoch, SnapshotScope::DiskOnly)
            .await;
        assert!(
            matches!(paused, Err(PauseError::Failed { .. })),
            "{paused:?}"
        );
        assert_eq!(rig.say("a", "read 7").await, "memory");
        assert_eq!(rig.say("a", "disk-write 9 on").await, "ok");
        rig.fake.fail_next(fault);
        let taken = rig.pool.snapshot(&id("a"), SnapshotScope::DiskOnly).await;
        assert!(
            matches!(taken, Err(SnapshotError::Failed { .. })),
            "{taken:?}"
        );
        assert_eq!(rig.say("a", "disk-write 9 on").await, "ok");
    }
    assert_eq!(rig.fake.counts().live, 1);
}

#[tokio::test]
async fn failed_thaw_is_retried_and_keeps_the_machine() {
    let rig = Rig::with_data("a").await;
    rig.fake.fail_next(Fault::Thaw);
    let taken = rig.pool.snapshot(&id("a"), SnapshotScope::DiskOnly).await;
    taken.unwrap();
    assert_eq!(rig.say("a", "read 7").await, "memory");
    let write = async || try_say(&*rig.enter("a").await, "disk-write 9 on").await;
    assert_eq!(write().await, None, "the disk is frozen");
    while write().await.as_deref() != Some("ok") {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.fake.counts().live, 1);
}

#[tokio::test]
async fn disk_only_snapshot_boots_new_sandboxes() {
    let rig = Rig::with_data("a").await;
    let snapshot = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::DiskOnly)
        .await
        .unwrap()
        .id;
    // The sandbox keeps running on a new layer, and the snapshot is not its wake source.
    assert_eq!(rig.say("a", "read 7").await, "memory");
    assert_eq!(rig.say("a", "disk-write 8 later").await, "ok");
    assert_eq!(rig.pool.info(&id("a")).await.unwrap().snapshot, None);
    let other = |name: &str| {
        let mut spec = spec(name);
        spec.origin = Origin::Snapshot(snapshot.clone());
        spec
    };
    rig.pool.create(other("b")).await.unwrap();
    assert_eq!(rig.say("b", "disk-read 7").await, "disk");
    assert_eq!(rig.say("b", "disk-read 8").await, "");
    assert_eq!(rig.say("b", "read 7").await, "");
    let init = rig.fake.inits().pop().unwrap();
    assert!(
        init.get("machineId").is_some(),
        "a fork has its own identity"
    );
    // A later pause of the origin has everything.
    rig.pause("a").await;
    for (line, answer) in [("read 7", "memory"), ("disk-read 8", "later")] {
        assert_eq!(rig.say("a", line).await, answer);
    }
}
