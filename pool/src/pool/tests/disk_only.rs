//! What pauses and snapshots keep, and going back to them.

use pool_api::{
    EnterError, Epoch, GuestMetrics, IfPaused, Node, Origin, PauseError, ResumeError,
    RollbackError, SandboxState, SnapshotError, SnapshotScope, Start,
};
use vmm_api::fake::Fault;

use super::{Kind, Rig, id, say, spec, wait_for_event};

impl Rig {
    async fn written(name: &str) -> Self {
        let rig = Self::new().await;
        rig.create(name).await;
        rig.say(name, "write 7 memory").await;
        rig.say(name, "disk-write 7 disk").await;
        rig
    }

    async fn pause_keeping(&self, name: &str, keep: SnapshotScope) {
        let epoch = self.pool.info(&id(name)).await.unwrap().epoch;
        self.pool.pause(&id(name), epoch, keep).await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_without_memory_boots_from_the_disk_as_the_same_sandbox() {
    let rig = Rig::written("a").await;
    rig.pause_keeping("a", SnapshotScope::DiskOnly).await;
    let info = rig.pool.info(&id("a")).await.unwrap();
    assert_eq!(
        (info.state, info.scope),
        (SandboxState::Paused, SnapshotScope::DiskOnly)
    );
    assert_eq!(rig.fake.counts().live, 0);
    // A request does not wake it, not even after a restart of the pool.
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
    let told = rig.fake.inits().pop().unwrap();
    assert_eq!(told["accessToken"], "token of a");
    assert_eq!(
        (&told["sandboxId"], &told["hostname"]),
        (&"a".into(), &"a".into())
    );
    assert_eq!(told["envVars"]["COLOUR"], "blue");
    assert!(told.get("machineId").is_none(), "it has one on its disk");
    // Its memory is kept again by the next pause, and restored.
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
async fn a_sandbox_with_memory_can_be_booted_from_its_disk() {
    let rig = Rig::written("a").await;
    rig.pause("a").await;
    let before = rig.fake.counts();
    rig.pool
        .resume(&id("a"), SnapshotScope::DiskOnly)
        .await
        .unwrap();
    let after = rig.fake.counts();
    assert_eq!(after.boots, before.boots + 1);
    // Its memory was woken once more, to write back what it held.
    assert_eq!(
        (after.loads - before.loads, after.captures - before.captures),
        (1, 1)
    );
    assert_eq!(rig.say("a", "read 7").await, "");
    assert_eq!(rig.say("a", "disk-read 7").await, "disk");
    let again = rig.pool.resume(&id("a"), SnapshotScope::DiskOnly).await;
    assert!(matches!(again, Err(ResumeError::AlreadyRunning(_))));
    // The next wake is an ordinary one.
    rig.pause("a").await;
    let lease = rig.enter("a").await;
    assert_eq!(lease.wake().unwrap().start, Start::Restore);
}

#[tokio::test]
async fn a_sandbox_that_cannot_write_back_boots_from_the_disk_as_it_is() {
    let rig = Rig::written("a").await;
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
async fn a_boot_that_is_asked_for_during_a_pause_is_one() {
    let rig = Rig::written("a").await;
    let before = rig.fake.counts();
    for (keep, from) in [
        (SnapshotScope::Full, SnapshotScope::DiskOnly),
        (SnapshotScope::DiskOnly, SnapshotScope::Full),
    ] {
        let captures = rig.fake.counts().captures;
        let epoch = rig.pool.info(&id("a")).await.unwrap().epoch;
        rig.fake.hold_captures();
        let pool = std::sync::Arc::clone(&rig.pool);
        let pause = tokio::spawn(async move { pool.pause(&id("a"), epoch, keep).await });
        rig.fake.captures_begun(captures + 1).await;
        if keep == SnapshotScope::DiskOnly {
            // It would be woken from memory it does not keep.
            let entered = rig.pool.enter(&id("a"), IfPaused::Wake).await;
            assert!(matches!(entered, Err(EnterError::Paused(_))));
        }
        let (name, mut events) = (id("a"), rig.pool.events());
        let mut resume = std::pin::pin!(rig.pool.resume(&name, from));
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
async fn a_filesystem_that_was_frozen_in_vain_is_thawed() {
    let rig = Rig::written("a").await;
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
async fn a_snapshot_of_the_disk_alone_makes_others_that_boot() {
    let rig = Rig::written("a").await;
    let snapshot = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::DiskOnly)
        .await
        .unwrap()
        .id;
    // It goes on, on a new layer, and is not what it would wake from.
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
    let told = rig.fake.inits().pop().unwrap();
    assert!(
        told.get("machineId").is_some(),
        "a fork has an identity of its own"
    );
    // A pause of the first one afterwards has everything.
    rig.pause("a").await;
    for (line, answer) in [("read 7", "memory"), ("disk-read 8", "later")] {
        assert_eq!(rig.say("a", line).await, answer);
    }
}

#[tokio::test]
async fn a_rollback_puts_a_sandbox_back_whether_it_runs_or_not() {
    let rig = Rig::written("a").await;
    let snapshot = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    for paused in [false, true] {
        rig.say("a", "write 7 wrong").await;
        rig.say("a", "disk-write 7 wrong").await;
        let lease = rig.enter("a").await;
        let epoch = lease.epoch();
        if paused {
            drop(lease);
            rig.pause("a").await;
            let back = rig.pool.rollback(&id("a"), &snapshot).await.unwrap();
            assert!(back.epoch > epoch);
        } else {
            let back = rig.pool.rollback(&id("a"), &snapshot).await.unwrap();
            assert_eq!(
                (back.state, back.epoch),
                (SandboxState::Running, epoch.next())
            );
            lease.revoked().await;
        }
        assert_eq!(rig.say("a", "read 7").await, "memory");
        assert_eq!(rig.say("a", "disk-read 7").await, "disk");
        let told = rig.fake.inits().pop().unwrap();
        assert!(told.get("machineId").is_none(), "it stays who it is");
        assert_eq!(rig.fake.counts().live, 1);
    }
    // What it was rolled back to is what it wakes from after a crash.
    rig.say("a", "write 7 wrong").await;
    let rig = rig.crash().await;
    assert_eq!(rig.say("a", "read 7").await, "memory");
}

#[tokio::test]
async fn a_rollback_that_fails_loses_nothing_but_the_present() {
    let rig = Rig::written("a").await;
    rig.create("b").await;
    let snapshot = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    let others = rig.pool.rollback(&id("b"), &snapshot).await;
    assert!(matches!(others, Err(RollbackError::NoSnapshot { .. })));
    let unknown = rig.pool.rollback(&id("c"), &snapshot).await;
    assert!(matches!(unknown, Err(RollbackError::NotFound(_))));
    assert_eq!(rig.say("a", "read 7").await, "memory");
    rig.say("a", "write 7 wrong").await;
    rig.fake.fail_next(Fault::Load);
    let failed = rig.pool.rollback(&id("a"), &snapshot).await;
    assert!(
        matches!(failed, Err(RollbackError::Failed { .. })),
        "{failed:?}"
    );
    assert_eq!(rig.state("a").await, SandboxState::Paused);
    assert_eq!(rig.say("a", "read 7").await, "memory");
}

#[tokio::test]
async fn a_kept_snapshot_outlives_its_sandbox_until_it_is_given_up() {
    let rig = Rig::written("a").await;
    let before = rig.count("snapshots");
    let full = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    rig.pause("a").await;
    // Of one that is paused: what it wakes from, or its disks.
    let paused = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    assert_eq!(
        rig.pool.info(&id("a")).await.unwrap().snapshot,
        Some(paused.clone())
    );
    let disk = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::DiskOnly)
        .await
        .unwrap()
        .id;
    rig.pool.kill(&id("a")).await.unwrap();
    let rig = rig.crash().await;
    let mut kept = rig.pool.retained_snapshots().await;
    kept.sort();
    let mut all = vec![full, paused, disk];
    all.sort();
    assert_eq!(kept, all);
    for (at, snapshot) in all.iter().enumerate() {
        let name = format!("b{at}");
        let mut spec = spec(&name);
        spec.origin = Origin::Snapshot(snapshot.clone());
        rig.pool.create(spec).await.unwrap();
        assert_eq!(rig.say(&name, "disk-read 7").await, "disk");
        rig.pool.release_snapshot(snapshot).await.unwrap();
        rig.pool.release_snapshot(snapshot).await.unwrap();
        // Who was forked from it needs it still.
        assert_eq!(rig.say(&name, "disk-read 7").await, "disk");
        rig.pool.kill(&id(&name)).await.unwrap();
    }
    assert_eq!((rig.count("snapshots"), rig.count("kept")), (before, 0));
}

#[tokio::test]
async fn asking_for_metrics_is_no_use_of_a_sandbox() {
    let rig = Rig::written("a").await;
    let GuestMetrics {
        cpus, memory_total, ..
    } = rig.pool.metrics(&id("a")).await.unwrap();
    assert_eq!((cpus, memory_total), (1, 4 << 20));
    rig.pause("a").await;
    assert_eq!(rig.pool.metrics(&id("a")).await, None);
    assert_eq!(rig.state("a").await, SandboxState::Paused);
    assert_eq!(say(&*rig.enter("a").await, "read 7").await, "memory");
}
