//! Rows of [`crate::Node::rollback`].

use crate::{
    Epoch, IfPaused, PauseCause, RollbackError, SandboxState, SnapshotScope, StartCause,
    contract::{Bench, Row, assert_revoked, expect_err, expect_ok, id, paused, started},
};

const FULL: SnapshotScope = SnapshotScope::Full;

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        (
            "rollback_keeps_identity_in_a_new_epoch",
            Box::pin(rolls_back(bench)),
        ),
        (
            "foreign_and_released_snapshots_are_refused",
            Box::pin(refusals(bench)),
        ),
        (
            "failed_rollback_pauses_at_the_snapshot",
            Box::pin(failed(bench)),
        ),
    ]
}

async fn rolls_back(bench: &Bench<'_>) {
    bench.create("a").await;
    let taken = expect_ok(bench.node().snapshot(&id("a"), FULL).await);
    let lease = expect_ok(bench.node().enter(&id("a"), IfPaused::Fail).await);
    let mut events = bench.events();
    let info = expect_ok(bench.node().rollback(&id("a"), &taken.id).await);
    assert_revoked(&*lease).await;
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(2)));
    assert_eq!(info.id, id("a"));
    assert_eq!(started(&events.next("a").await).0, StartCause::RolledBack);
    expect_ok(bench.node().pause(&id("a"), Epoch(2), FULL).await);
    paused(&events.next("a").await);
    let info = expect_ok(bench.node().rollback(&id("a"), &taken.id).await);
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(3)));
}

async fn refusals(bench: &Bench<'_>) {
    bench.create("a").await;
    bench.create("b").await;
    let taken = expect_ok(bench.node().snapshot(&id("a"), FULL).await);
    let foreign = expect_err(bench.node().rollback(&id("b"), &taken.id).await);
    assert!(
        matches!(foreign, RollbackError::NoSnapshot { .. }),
        "{foreign:?}"
    );
    let missing = expect_err(bench.node().rollback(&id("c"), &taken.id).await);
    assert!(matches!(missing, RollbackError::NotFound(_)), "{missing:?}");
    expect_ok(bench.node().release_snapshot(&taken.id).await);
    let released = expect_err(bench.node().rollback(&id("a"), &taken.id).await);
    assert!(
        matches!(released, RollbackError::NoSnapshot { .. }),
        "{released:?}"
    );
    assert_eq!(bench.info("a").await.epoch, Epoch(1));
}

async fn failed(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("a").await;
    let taken = expect_ok(bench.node().snapshot(&id("a"), FULL).await);
    let mut events = bench.events();
    faults.fail_next_start();
    let error = expect_err(bench.node().rollback(&id("a"), &taken.id).await);
    assert!(matches!(error, RollbackError::Failed { .. }), "{error:?}");
    let event = events.next("a").await;
    assert_eq!(paused(&event), (FULL, PauseCause::StartFailed));
    let info = bench.info("a").await;
    assert_eq!(
        (info.state, info.snapshot),
        (SandboxState::Paused, Some(taken.id))
    );
}
