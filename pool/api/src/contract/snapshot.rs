//! Rows of [`crate::Node::snapshot`], [`crate::Node::release_snapshot`] and [`crate::Node::retained_snapshots`].

use crate::{
    CreateError, Epoch, Origin, SandboxState, SnapshotError, SnapshotScope, Start,
    contract::{Bench, Row, expect_err, expect_ok, id, started},
};

const FULL: SnapshotScope = SnapshotScope::Full;
const DISK: SnapshotScope = SnapshotScope::DiskOnly;

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        (
            "snapshot_outlives_its_sandbox_until_released",
            Box::pin(retained(bench)),
        ),
        (
            "disk_only_snapshot_boots_new_sandboxes",
            Box::pin(boots(bench)),
        ),
        (
            "paused_sandbox_gives_its_own_snapshot",
            Box::pin(of_paused(bench)),
        ),
        (
            "pausing_sandbox_gives_no_snapshot",
            Box::pin(of_pausing(bench)),
        ),
        ("failed_snapshot_leaves_it_running", Box::pin(failed(bench))),
    ]
}

async fn retained(bench: &Bench<'_>) {
    bench.create("a").await;
    let taken = expect_ok(bench.node().snapshot(&id("a"), FULL).await);
    assert_eq!(taken.scope, FULL);
    let info = bench.info("a").await;
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(1)));
    bench.kill(&id("a")).await;
    let listed = bench.node().retained_snapshots().await;
    assert_eq!(listed, std::slice::from_ref(&taken.id));
    let mut spec = bench.spec("b");
    spec.origin = Origin::Snapshot(taken.id.clone());
    expect_ok(bench.node().create(spec.clone()).await);
    bench.kill(&id("b")).await;
    for _ in 0..2 {
        expect_ok(bench.node().release_snapshot(&taken.id).await);
    }
    assert!(bench.node().retained_snapshots().await.is_empty());
    let error = expect_err(bench.node().create(spec).await);
    assert!(matches!(error, CreateError::NoTemplate(_)), "{error:?}");
    let missing = expect_err(bench.node().snapshot(&id("c"), FULL).await);
    assert!(matches!(missing, SnapshotError::NotFound(_)), "{missing:?}");
}

async fn boots(bench: &Bench<'_>) {
    bench.create("a").await;
    let taken = expect_ok(bench.node().snapshot(&id("a"), DISK).await);
    assert_eq!(taken.scope, DISK);
    assert_eq!(bench.state("a").await, SandboxState::Running);
    let mut events = bench.events();
    let mut spec = bench.spec("b");
    spec.origin = Origin::Snapshot(taken.id);
    expect_ok(bench.node().create(spec).await);
    assert_eq!(started(&events.next("b").await).1, Start::Boot);
}

async fn of_paused(bench: &Bench<'_>) {
    let own = bench.create_paused("a", FULL).await;
    assert_eq!(expect_ok(bench.node().snapshot(&id("a"), FULL).await), own);
    let disk = expect_ok(bench.node().snapshot(&id("a"), DISK).await);
    assert_eq!(disk.scope, DISK);
    assert_ne!(disk.id, own.id);
    let own = bench.create_paused("b", DISK).await;
    let taken = expect_ok(bench.node().snapshot(&id("b"), FULL).await);
    assert_eq!(taken, own, "it has no memory");
    assert_eq!(bench.state("b").await, SandboxState::Paused);
}

async fn of_pausing(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    faults.hold_pauses();
    let (node, name) = (bench.node(), id("a"));
    let mut pause = Box::pin(node.pause(&name, Epoch(1), FULL));
    assert!(futures::poll!(&mut pause).is_pending());
    faults.wait_for_held_pauses(1).await;
    let error = expect_err(node.snapshot(&name, FULL).await);
    assert!(matches!(error, SnapshotError::Conflict { .. }), "{error:?}");
    faults.release_pauses();
    expect_ok(pause.await);
}

async fn failed(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    faults.fail_next_capture();
    let error = expect_err(bench.node().snapshot(&id("a"), FULL).await);
    assert!(matches!(error, SnapshotError::Failed { .. }), "{error:?}");
    let info = bench.info("a").await;
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(1)));
    assert!(bench.node().retained_snapshots().await.is_empty());
}
