//! Rows of [`crate::Node::enter`].

use futures::future::join_all;

use crate::{
    EnterError, Epoch, EventKind, ForkError, IfPaused, PauseCause, PauseError, SandboxState,
    SnapshotError, SnapshotScope, Stage, Start, StartCause, StopReason, WakeReport,
    contract::{Bench, Row, assert_revoked, expect_err, expect_ok, id, paused, started},
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
        (
            "starting_sandbox_admits_callers_once_it_runs",
            Box::pin(starting(bench)),
        ),
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
        let lease = expect_ok(bench.node().enter(&id("a"), if_paused).await);
        assert_eq!(lease.epoch(), Epoch(1));
        assert!(lease.wake().is_none());
    }
    let lease = bench.node().try_enter(&id("a"));
    let lease = lease.expect("a running sandbox is entered without waiting");
    assert_eq!(lease.epoch(), Epoch(1));
    assert!(bench.node().try_enter(&id("b")).is_none());
    let missing = expect_err(bench.node().enter(&id("b"), IfPaused::Wake).await);
    assert!(matches!(missing, EnterError::NotFound(_)), "{missing:?}");
}

async fn one_wake(bench: &Bench<'_>) {
    bench.create_paused("a", FULL).await;
    assert!(bench.node().try_enter(&id("a")).is_none());
    let mut events = bench.events();
    let name = id("a");
    let calls = (0..10).map(|_| bench.node().enter(&name, IfPaused::Wake));
    let leases: Vec<_> = join_all(calls).await.into_iter().map(expect_ok).collect();
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
    let waited = leases[0].wake().map(stages).unwrap_or_default();
    let EventKind::Started { report, .. } = &event.kind else {
        panic!("{event:?}");
    };
    assert_eq!(stages(report), waited, "event and leases report one start");
    assert_eq!(waited.first(), Some(&Stage::Queue));
    events.assert_none("a");
    let later = expect_ok(bench.node().enter(&name, IfPaused::Wake).await);
    assert!(later.wake().is_none(), "it ran before the call");
}

fn stages(report: &WakeReport) -> Vec<Stage> {
    report.stages.iter().map(|(stage, _)| *stage).collect()
}

async fn may_not_wake(bench: &Bench<'_>) {
    bench.create_paused("a", FULL).await;
    let error = expect_err(bench.node().enter(&id("a"), IfPaused::Fail).await);
    assert!(matches!(error, EnterError::Paused(_)), "{error:?}");
    assert_eq!(bench.state("a").await, SandboxState::Paused);
}

async fn disk_only(bench: &Bench<'_>) {
    bench.create_paused("a", SnapshotScope::DiskOnly).await;
    for if_paused in [IfPaused::Wake, IfPaused::Fail] {
        let error = expect_err(bench.node().enter(&id("a"), if_paused).await);
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
    let refusal = expect_err(node.enter(&name, IfPaused::Fail).await);
    assert!(matches!(refusal, EnterError::Paused(_)), "{refusal:?}");
    let mut enter = Box::pin(node.enter(&name, IfPaused::Wake));
    assert!(futures::poll!(&mut enter).is_pending());
    faults.release_pauses();
    let (taken, lease) = futures::join!(pause, enter);
    assert_eq!(expect_ok(taken).scope, FULL);
    let lease = expect_ok(lease);
    assert_eq!(lease.epoch(), Epoch(2));
    assert!(lease.wake().is_some());
}

async fn starting(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create_paused("a", FULL).await;
    let (node, name) = (bench.node(), id("a"));
    faults.hold_starts();
    let mut first = Box::pin(node.enter(&name, IfPaused::Wake));
    assert!(futures::poll!(&mut first).is_pending());
    faults.wait_for_held_starts(1).await;
    assert_eq!(bench.state("a").await, SandboxState::Starting);
    let fork = expect_err(node.fork(&name, Vec::new()).await);
    assert!(matches!(fork, ForkError::Conflict { .. }), "{fork:?}");
    let epoch = bench.info("a").await.epoch;
    let pause = expect_err(node.pause(&name, epoch, FULL).await);
    assert!(matches!(pause, PauseError::Conflict { .. }), "{pause:?}");
    let snapshot = expect_err(node.snapshot(&name, FULL).await);
    assert!(
        matches!(snapshot, SnapshotError::Conflict { .. }),
        "{snapshot:?}"
    );
    // A second caller joins the wake, and the first one leaves.
    let mut second = Box::pin(node.enter(&name, IfPaused::Fail));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    faults.release_starts();
    assert_eq!(expect_ok(second.await).epoch(), Epoch(2));
}

async fn failed_wake(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create_paused("a", FULL).await;
    let mut events = bench.events();
    faults.fail_next_start();
    let error = expect_err(bench.node().enter(&id("a"), IfPaused::Wake).await);
    assert!(matches!(error, EnterError::Failed { .. }), "{error:?}");
    let event = events.next("a").await;
    assert_eq!(paused(&event), (FULL, PauseCause::StartFailed));
    let info = bench.info("a").await;
    assert_eq!(info.state, SandboxState::Paused);
    assert!(info.last_error.is_some());
    drop(expect_ok(
        bench.node().enter(&id("a"), IfPaused::Wake).await,
    ));
    assert_eq!(bench.info("a").await.last_error, None);
}

async fn lost_machine(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    let mut events = bench.events();
    let lease = expect_ok(bench.node().enter(&id("a"), IfPaused::Wake).await);
    faults.crash(&id("a"));
    assert_revoked(&*lease).await;
    let event = events.next("a").await;
    let crashed = matches!(event.kind, EventKind::Stopped(StopReason::Crashed));
    assert!(crashed, "{event:?}");
    assert!(bench.node().info(&id("a")).await.is_none());

    bench.create_paused("b", FULL).await;
    let mut events = bench.events();
    expect_ok(bench.node().resume(&id("b"), FULL).await);
    started(&events.next("b").await);
    faults.crash(&id("b"));
    let event = events.next("b").await;
    assert_eq!(paused(&event), (FULL, PauseCause::MachineLost));
    assert_eq!(bench.state("b").await, SandboxState::Paused);
}
