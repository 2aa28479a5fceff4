//! Rows of [`crate::Node::create`].

use crate::{
    CreateError, Origin, SandboxState, Start, StartCause,
    contract::{Bench, Room, Row, expect_err, expect_ok, id, started},
};

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        ("created_sandbox_runs", Box::pin(runs(bench))),
        (
            "taken_id_and_missing_origin_are_refused",
            Box::pin(refusals(bench)),
        ),
        (
            "full_host_refuses_and_leaves_nothing",
            Box::pin(full_host(bench)),
        ),
    ]
}

async fn runs(bench: &Bench<'_>) {
    let mut events = bench.events();
    let spec = bench.spec("a");
    let info = expect_ok(bench.node().create(spec.clone()).await);
    assert_eq!(
        (info.state, info.epoch),
        (SandboxState::Running, spec.epoch)
    );
    assert_eq!((&info.id, &info.template), (&spec.id, &spec.template));
    assert_eq!((info.snapshot, info.last_error), (None, None));
    assert_eq!(bench.state("a").await, SandboxState::Running);
    let event = events.next("a").await;
    assert_eq!(event.epoch, spec.epoch);
    assert_eq!(started(&event), (StartCause::Created, Start::Fork));
}

async fn refusals(bench: &Bench<'_>) {
    bench.create("a").await;
    let again = expect_err(bench.node().create(bench.spec("a")).await);
    assert!(matches!(again, CreateError::Exists(taken) if taken == id("a")));
    let missing = "0".repeat(64);
    for origin in [
        "missing".parse().map(Origin::Template),
        missing.parse().map(Origin::Snapshot),
    ] {
        let mut spec = bench.spec("b");
        spec.origin = expect_ok(origin);
        let error = expect_err(bench.node().create(spec).await);
        assert!(matches!(error, CreateError::NoTemplate(_)), "{error:?}");
        assert!(bench.node().info(&id("b")).await.is_none());
    }
}

async fn full_host(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    faults.set_room(Room::Full);
    let error = expect_err(bench.node().create(bench.spec("a")).await);
    faults.set_room(Room::Free);
    assert!(matches!(error, CreateError::NoRoom { .. }), "{error:?}");
    assert!(bench.node().info(&id("a")).await.is_none());
    bench.create("a").await;
}
