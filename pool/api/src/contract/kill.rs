//! Rows of [`crate::Node::kill`].

use crate::{
    Epoch, EventKind, IfPaused, KillError, PauseError, SnapshotScope, StopReason,
    contract::{Bench, Row, assert_revoked, expect_err, expect_ok, id},
};

const FULL: SnapshotScope = SnapshotScope::Full;

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        (
            "kill_removes_a_sandbox_in_any_state",
            Box::pin(removes(bench)),
        ),
        (
            "kill_during_a_pause_is_a_conflict_for_it",
            Box::pin(during_pause(bench)),
        ),
    ]
}

async fn removes(bench: &Bench<'_>) {
    bench.create("running").await;
    bench.create_paused("paused", FULL).await;
    let lease = expect_ok(bench.node().enter(&id("running"), IfPaused::Fail).await);
    let mut events = bench.events();
    for name in ["running", "paused"] {
        expect_ok(bench.node().kill(&id(name)).await);
        assert!(bench.node().info(&id(name)).await.is_none());
        let event = events.next(name).await;
        let killed = matches!(event.kind, EventKind::Stopped(StopReason::Killed));
        assert!(killed, "{event:?}");
        let again = expect_err(bench.node().kill(&id(name)).await);
        assert!(matches!(again, KillError::NotFound(_)), "{again:?}");
    }
    assert_revoked(&*lease).await;
    assert!(bench.node().list().await.is_empty());
    bench.create("running").await;
}

async fn during_pause(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    faults.hold_pauses();
    let (node, name) = (bench.node(), id("a"));
    let mut pause = Box::pin(node.pause(&name, Epoch(1), FULL));
    assert!(futures::poll!(&mut pause).is_pending());
    faults.wait_for_held_pauses(1).await;
    let (killed, paused) = futures::join!(node.kill(&name), pause);
    faults.release_pauses();
    expect_ok(killed);
    let error = expect_err(paused);
    assert!(matches!(error, PauseError::Conflict { .. }), "{error:?}");
    assert!(node.info(&name).await.is_none());
}
