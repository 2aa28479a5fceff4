//! Rows of [`crate::Node::enter`].

use futures::future::join_all;

use crate::{
    EnterError, Epoch, EventKind, IfPaused, PauseCause, SandboxState, SnapshotScope, Start,
    StartCause, StopReason,
    contract::{Bench, Row, assert_revoked, granted, id, paused, refused, started},
};

const FULL: SnapshotScope = SnapshotScope::Full;

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        (
            "running_sandbox_grants_a_lease_at_once",
            Box::pin(running(bench)),
        ),
        (
            "concurrent_callers_share_one_wake",
            Box::pin(one_wake(bench)),
        ),
        (
            "caller_that_may_not_wake_is_refused",
            Box::pin(may_not_wake(bench)),
        ),
        ("disk_only_sandbox_is_not_woken", Box::pin(disk_only(bench))),
        ("pausing_sandbox_counts_as_paused", Box::pin(pausing(bench))),
        ("failed_wake_leaves_it_paused", Box::pin(failed_wake(bench))),
        (
            "lost_machine_falls_back_or_stops",
            Box::pin(lost_machine(bench)),
        ),
    ]
}

async fn running(bench: &Bench<'_>) {
    bench.create("a").await;
    for if_paused in [IfPaused::Wake, IfPaused::Fail] {
        let lease = granted(bench.node().enter(&id("a"), if_paused).await);
        assert_eq!(lease.epoch(), Epoch(1));
        assert!(lease.wake().is_none());
    }
    let missing = refused(bench.node().enter(&id("b"), IfPaused::Wake).await);
    assert!(matches!(missing, EnterError::NotFound(_)), "{missing:?}");
}

async fn one_wake(bench: &Bench<'_>) {
    bench.create_paused("a", FULL).await;
    let mut events = bench.events();
    let name = id("a");
    let calls = (0..10).map(|_| bench.node().enter(&name, IfPaused::Wake));
    let leases: Vec<_> = join_all(calls).await.into_iter().map(granted).collect();
    for lease in &leases {
        assert_eq!(lease.epoch(), Epoch(2));
        let report = lease
            .wake()
            .unwrap_or_else(|| panic!("a lease without a report"));
        assert_eq!(report.start, Start::Restore);
    }
    let event = events.next("a").await;
    assert_eq!(event.epoch, Epoch(2));
    assert_eq!(started(&event), (StartCause::Woken, Start::Restore));
    events.assert_none("a");
    let later = granted(bench.node().enter(&name, IfPaused::Wake).await);
    assert!(later.wake().is_none(), "it ran before the call");
}

async fn may_not_wake(bench: &Bench<'_>) {
    bench.create_paused("a", FULL).await;
    let error = refused(bench.node().enter(&id("a"), IfPaused::Fail).await);
    assert!(matches!(error, EnterError::Paused(_)), "{error:?}");
    assert_eq!(bench.state("a").await, SandboxState::Paused);
}

async fn disk_only(bench: &Bench<'_>) {
    bench.create_paused("a", SnapshotScope::DiskOnly).await;
    for if_paused in [IfPaused::Wake, IfPaused::Fail] {
        let error = refused(bench.node().enter(&id("a"), if_paused).await);
        assert!(matches!(error, EnterError::Paused(_)), "{error:?}");
    }
    assert_eq!(bench.state("a").await, SandboxState::Paused);
}

async fn pausing(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    faults.hold_pauses();
    let (node, name) = (bench.node(), id("a"));
    let mut pause = Box::pin(node.pause(&name, Epoch(1), FULL));
    assert!(futures::poll!(&mut pause).is_pending());
    faults.wait_for_held_pauses(1).await;
    let refusal = refused(node.enter(&name, IfPaused::Fail).await);
    assert!(matches!(refusal, EnterError::Paused(_)), "{refusal:?}");
    let mut enter = Box::pin(node.enter(&name, IfPaused::Wake));
    assert!(futures::poll!(&mut enter).is_pending());
    faults.release_pauses();
    let (taken, lease) = futures::join!(pause, enter);
    assert_eq!(granted(taken).scope, FULL);
    let lease = granted(lease);
    assert_eq!(lease.epoch(), Epoch(2));
    assert!(lease.wake().is_some());
}

async fn failed_wake(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create_paused("a", FULL).await;
    let mut events = bench.events();
    faults.fail_next_start();
    let error = refused(bench.node().enter(&id("a"), IfPaused::Wake).await);
    assert!(matches!(error, EnterError::Failed { .. }), "{error:?}");
    let event = events.next("a").await;
    assert_eq!(paused(&event), (FULL, PauseCause::StartFailed));
    let info = bench.info("a").await;
    assert_eq!(info.state, SandboxState::Paused);
    assert!(info.last_error.is_some());
    drop(granted(bench.node().enter(&id("a"), IfPaused::Wake).await));
    assert_eq!(bench.info("a").await.last_error, None);
}

async fn lost_machine(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    let mut events = bench.events();
    let lease = granted(bench.node().enter(&id("a"), IfPaused::Wake).await);
    faults.crash(&id("a"));
    assert_revoked(&*lease).await;
    let event = events.next("a").await;
    let crashed = matches!(event.kind, EventKind::Stopped(StopReason::Crashed));
    assert!(crashed, "{event:?}");
    assert!(bench.node().info(&id("a")).await.is_none());

    bench.create_paused("b", FULL).await;
    let mut events = bench.events();
    granted(bench.node().resume(&id("b"), FULL).await);
    started(&events.next("b").await);
    faults.crash(&id("b"));
    let event = events.next("b").await;
    assert_eq!(paused(&event), (FULL, PauseCause::MachineLost));
    assert_eq!(bench.state("b").await, SandboxState::Paused);
}
