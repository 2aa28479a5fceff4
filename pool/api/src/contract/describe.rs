//! Rows of the calls that only describe: [`crate::Node::info`], [`crate::Node::list`], [`crate::Node::metrics`], [`crate::Node::console`] and
//! templates.

use crate::{
    SandboxState, SnapshotScope,
    contract::{Bench, Row, expect_ok, id},
};

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        ("list_is_ordered_by_id", Box::pin(list(bench))),
        ("metrics_neither_wake_nor_fail", Box::pin(metrics(bench))),
        ("console_returns_its_last_bytes", Box::pin(console(bench))),
        (
            "unchanged_template_is_not_rebuilt",
            Box::pin(templates(bench)),
        ),
    ]
}

async fn list(bench: &Bench<'_>) {
    for name in ["c", "a", "b"] {
        bench.create(name).await;
    }
    let ids: Vec<_> = bench
        .node()
        .list()
        .await
        .into_iter()
        .map(|info| info.id)
        .collect();
    assert_eq!(ids, ["a", "b", "c"].map(id));
    assert!(bench.node().info(&id("d")).await.is_none());
}

async fn metrics(bench: &Bench<'_>) {
    bench.create("a").await;
    let metrics = bench.node().metrics(&id("a")).await;
    let metrics = metrics.unwrap_or_else(|| panic!("a running guest has metrics"));
    assert!(metrics.cpus >= 1 && metrics.memory_total >= metrics.memory_used);
    bench.create_paused("b", SnapshotScope::Full).await;
    assert!(bench.node().metrics(&id("b")).await.is_none());
    assert_eq!(bench.state("b").await, SandboxState::Paused);
    assert!(bench.node().metrics(&id("c")).await.is_none());
}

async fn console(bench: &Bench<'_>) {
    bench.create("a").await;
    let (node, name) = (bench.node(), id("a"));
    let read = async |bytes| node.console(&name, bytes).await.unwrap_or_default();
    // A guest may write between the calls.
    let before = read(usize::MAX).await;
    let tail = read(4).await;
    let after = read(usize::MAX).await;
    assert!(after.starts_with(&before), "a console only grows");
    assert_eq!(tail.len(), 4.min(before.len()), "{tail:?}");
    let is_tail = (before.len()..=after.len()).any(|len| after[..len].ends_with(&tail));
    assert!(is_tail, "{tail:?}");
    assert!(node.console(&id("b"), 4).await.is_none());
}

async fn templates(bench: &Bench<'_>) {
    let name = bench.harness.template();
    let listed = bench.node().templates().await;
    let listed = listed.into_iter().find(|template| template.name == name);
    let listed = listed.unwrap_or_else(|| panic!("{name} is built"));
    let again = expect_ok(bench.node().build_template(&name).await);
    assert_eq!(again.built_at, listed.built_at);
    assert_eq!(again.snapshot, listed.snapshot);
}
