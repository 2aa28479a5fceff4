//! Rows of [`crate::Node::fork`].

use crate::{
    CreateError, Epoch, ForkError, ForkSpec, SandboxState, SnapshotScope,
    contract::{Bench, Row, expect_err, expect_ok, id},
};

const FULL: SnapshotScope = SnapshotScope::Full;

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        (
            "fork_returns_one_outcome_a_child",
            Box::pin(outcomes(bench)),
        ),
        ("only_a_running_sandbox_forks", Box::pin(states(bench))),
    ]
}

fn child(name: &str) -> ForkSpec {
    ForkSpec {
        id: id(name),
        epoch: Epoch(1),
        access_token: None,
    }
}

async fn outcomes(bench: &Bench<'_>) {
    bench.create("a").await;
    let children = vec![child("b"), child("a"), child("c")];
    let outcomes = expect_ok(bench.node().fork(&id("a"), children).await);
    let names: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Ok(info) => {
                assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(1)));
                Some(info.id)
            }
            Err(CreateError::Exists(taken)) => {
                assert_eq!(taken, id("a"));
                None
            }
            Err(other) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, [Some(id("b")), None, Some(id("c"))]);
    let origin = bench.info("a").await;
    assert_eq!(
        (origin.state, origin.epoch),
        (SandboxState::Running, Epoch(1))
    );
}

async fn states(bench: &Bench<'_>) {
    bench.create_paused("a", FULL).await;
    let error = expect_err(bench.node().fork(&id("a"), vec![child("b")]).await);
    assert!(matches!(error, ForkError::Paused(_)), "{error:?}");
    let missing = expect_err(bench.node().fork(&id("c"), vec![child("b")]).await);
    assert!(matches!(missing, ForkError::NotFound(_)), "{missing:?}");
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    bench.create("d").await;
    faults.hold_pauses();
    let (node, name) = (bench.node(), id("d"));
    let mut pause = Box::pin(node.pause(&name, Epoch(1), FULL));
    assert!(futures::poll!(&mut pause).is_pending());
    faults.wait_for_held_pauses(1).await;
    let error = expect_err(node.fork(&name, vec![child("b")]).await);
    let pausing = SandboxState::Pausing;
    assert!(
        matches!(&error, ForkError::Conflict { state, .. } if *state == pausing),
        "{error:?}"
    );
    faults.release_pauses();
    expect_ok(pause.await);
}
