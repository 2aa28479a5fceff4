//! Retained snapshots and rollbacks. Specification: "Lifecycle of sandboxes".

use pool_api::{CreateError, Node, Origin, RollbackError, SandboxState, SnapshotScope};
use vmm_api::fake::Fault;

use super::{Rig, id, spec};

#[tokio::test]
async fn retained_snapshots_outlive_kill_and_crash() {
    let rig = Rig::with_data("a").await;
    let before = rig.count("snapshots");
    let full = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    rig.pause("a").await;
    // A paused sandbox gives its wake source, or its disks.
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
    let mut retained = rig.pool.retained_snapshots().await;
    retained.sort();
    let mut all = vec![full, paused, disk];
    all.sort();
    assert_eq!(retained, all);
    for (at, snapshot) in all.iter().enumerate() {
        let name = format!("b{at}");
        let mut spec = spec(&name);
        spec.origin = Origin::Snapshot(snapshot.clone());
        rig.pool.create(spec).await.unwrap();
        assert_eq!(rig.say(&name, "disk-read 7").await, "disk");
        rig.pool.release_snapshot(snapshot).await.unwrap();
        rig.pool.release_snapshot(snapshot).await.unwrap();
        // A fork still needs its layers.
        assert_eq!(rig.say(&name, "disk-read 7").await, "disk");
        rig.pool.kill(&id(&name)).await.unwrap();
    }
    assert_eq!((rig.count("snapshots"), rig.count("kept")), (before, 0));
}

#[tokio::test]
async fn retained_snapshot_forks_until_released() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 4 then").await;
    let snapshot = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    rig.say("a", "write 4 now").await;
    rig.pause("a").await;
    let rig = rig.crash().await;
    let mut fork = spec("b");
    fork.origin = Origin::Snapshot(snapshot.clone());
    rig.pool.create(fork).await.unwrap();
    assert_eq!(rig.say("b", "read 4").await, "then");
    assert_eq!(rig.say("a", "read 4").await, "now");
    rig.pool.kill(&id("a")).await.unwrap();
    rig.pool.kill(&id("b")).await.unwrap();
    rig.pool.release_snapshot(&snapshot).await.unwrap();
    let mut late = spec("c");
    late.origin = Origin::Snapshot(snapshot);
    assert!(matches!(
        rig.pool.create(late).await,
        Err(CreateError::NoTemplate(_))
    ));
}

#[tokio::test]
async fn rollback_restores_running_and_paused_sandboxes() {
    let rig = Rig::with_data("a").await;
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
            let info = rig.pool.rollback(&id("a"), &snapshot).await.unwrap();
            assert!(info.epoch > epoch);
        } else {
            let info = rig.pool.rollback(&id("a"), &snapshot).await.unwrap();
            assert_eq!(
                (info.state, info.epoch),
                (SandboxState::Running, epoch.next())
            );
            lease.revoked().await;
        }
        assert_eq!(rig.say("a", "read 7").await, "memory");
        assert_eq!(rig.say("a", "disk-read 7").await, "disk");
        let init = rig.fake.inits().pop().unwrap();
        assert!(
            init.get("machineId").is_none(),
            "a rollback keeps the identity"
        );
        assert_eq!(rig.fake.counts().live, 1);
    }
    // After a crash it wakes from the rollback's target.
    rig.say("a", "write 7 wrong").await;
    let rig = rig.crash().await;
    assert_eq!(rig.say("a", "read 7").await, "memory");
}

#[tokio::test]
async fn failed_rollback_pauses_at_its_snapshot() {
    let rig = Rig::with_data("a").await;
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
