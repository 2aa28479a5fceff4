//! Rows of [`crate::Node::pause`].

use crate::{
    Epoch, IfPaused, PauseCause, PauseError, SandboxState, SnapshotScope, StartCause,
    contract::{Bench, Row, assert_revoked, expect_err, expect_ok, id, paused, started},
};

const FULL: SnapshotScope = SnapshotScope::Full;
const DISK: SnapshotScope = SnapshotScope::DiskOnly;

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        ("pause_returns_a_durable_snapshot", Box::pin(durable(bench))),
        (
            "concurrent_pauses_share_the_first_scope",
            Box::pin(shared(bench)),
        ),
        ("stale_epoch_is_a_conflict", Box::pin(stale_epoch(bench))),
        (
            "paused_sandbox_reports_its_pause",
            Box::pin(already_paused(bench)),
        ),
        ("failed_pause_leaves_it_running", Box::pin(failed(bench))),
        (
            "dropped_call_does_not_cancel_the_pause",
            Box::pin(dropped_call(bench)),
        ),
    ]
}

async fn durable(bench: &Bench<'_>) {
    for (name, scope) in [("a", FULL), ("b", DISK)] {
        bench.create(name).await;
        let lease = expect_ok(bench.node().enter(&id(name), IfPaused::Fail).await);
        let mut events = bench.events();
        let name_id = id(name);
        let (taken, ()) = futures::join!(bench.node().pause(&name_id, Epoch(1), scope), async {
            lease.revoked().await;
            assert_revoked(&*lease).await;
            drop(lease);
        });
        let taken = expect_ok(taken);
        assert_eq!(taken.scope, scope);
        let info = bench.info(name).await;
        assert_eq!((info.state, info.scope), (SandboxState::Paused, scope));
        assert_eq!(info.snapshot, Some(taken.id));
        let event = events.next(name).await;
        assert_eq!(event.epoch, Epoch(1));
        assert_eq!(paused(&event), (scope, PauseCause::Requested));
    }
    let missing = expect_err(bench.node().pause(&id("c"), Epoch(1), FULL).await);
    assert!(matches!(missing, PauseError::NotFound(_)), "{missing:?}");
}

async fn shared(bench: &Bench<'_>) {
    bench.create("a").await;
    let name = id("a");
    let (first, second) = futures::join!(
        bench.node().pause(&name, Epoch(1), FULL),
        bench.node().pause(&name, Epoch(1), DISK),
    );
    let first = expect_ok(first);
    assert_eq!(first.scope, FULL);
    assert_eq!(expect_ok(second), first);
}

async fn stale_epoch(bench: &Bench<'_>) {
    bench.create("a").await;
    let running = expect_err(bench.node().pause(&id("a"), Epoch(7), FULL).await);
    let state = SandboxState::Running;
    assert!(matches!(&running, PauseError::Conflict { state: found, .. } if *found == state));
    assert_eq!(bench.state("a").await, SandboxState::Running);
    expect_ok(bench.node().pause(&id("a"), Epoch(1), FULL).await);
    let error = expect_err(bench.node().pause(&id("a"), Epoch(7), FULL).await);
    assert!(matches!(error, PauseError::Conflict { .. }), "{error:?}");
}

async fn already_paused(bench: &Bench<'_>) {
    bench.create_paused("a", DISK).await;
    let info = bench.info("a").await;
    match expect_err(bench.node().pause(&id("a"), Epoch(1), FULL).await) {
        PauseError::AlreadyPaused {
            epoch,
            since,
            scope,
            ..
        } => {
            assert_eq!((epoch, since, scope), (Epoch(1), info.since, DISK));
        }
        other => panic!("{other:?}"),
    }
}

async fn failed(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    let mut events = bench.events();
    faults.fail_next_capture();
    let error = expect_err(bench.node().pause(&id("a"), Epoch(1), FULL).await);
    assert!(matches!(error, PauseError::Failed { .. }), "{error:?}");
    let event = events.next("a").await;
    assert_eq!(
        (event.epoch, started(&event).0),
        (Epoch(1), StartCause::PauseFailed)
    );
    let info = bench.info("a").await;
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(1)));
    assert!(info.last_error.is_some());
    expect_ok(bench.node().pause(&id("a"), Epoch(1), FULL).await);
    assert_eq!(bench.info("a").await.last_error, None);
}

async fn dropped_call(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    let mut events = bench.events();
    faults.hold_pauses();
    let (node, name) = (bench.node(), id("a"));
    let mut pause = Box::pin(node.pause(&name, Epoch(1), FULL));
    assert!(futures::poll!(&mut pause).is_pending());
    faults.wait_for_held_pauses(1).await;
    drop(pause);
    faults.release_pauses();
    let event = events.next("a").await;
    assert_eq!(paused(&event), (FULL, PauseCause::Requested));
}
