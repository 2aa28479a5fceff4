//! Memory and registers across restores.

use serde_json::json;

use crate::rig::{Gateway, Sandbox, wait_until};

/// Pauses a sandbox twice, and asserts that a buffer of 8 MiB and a write between the pauses survive.
async fn pause_twice(gateway: &Gateway) -> Sandbox {
    let sandbox = gateway.create_with_probe(json!({})).await;
    let filled = sandbox
        .get(gateway, "/fill/20261122")
        .await
        .ok()
        .value::<String>("sum");
    sandbox.pause(gateway).await;
    let woken = sandbox.get(gateway, "/sum").await.ok();
    assert!(woken.header("server-timing").starts_with("wake;"));
    assert_eq!(woken.value::<String>("sum"), filled);

    let changed = sandbox
        .get(gateway, "/touch/123457")
        .await
        .ok()
        .value::<String>("sum");
    assert_ne!(changed, filled);
    sandbox.pause(gateway).await;
    let woken = sandbox.get(gateway, "/sum").await.ok();
    assert!(woken.header("server-timing").starts_with("wake;"));
    assert_eq!(woken.value::<String>("sum"), changed);
    sandbox
}

#[tokio::test]
async fn cow_memory_survives_pauses() {
    let Some(gateway) = Gateway::start_with(&["--memory", "cow"]).await else {
        return;
    };
    let sandbox = pause_twice(&gateway).await;
    sandbox.pause(&gateway).await;
    let timing = sandbox.get(&gateway, "/sum").await.ok();
    assert!(
        !timing.header("server-timing").contains("prefetch"),
        "no pager prefetches pages"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn paged_memory_survives_pauses() {
    let Some(gateway) = Gateway::start_with(&["--memory", "paged"]).await else {
        return;
    };
    let sandbox = pause_twice(&gateway).await;
    sandbox.pause(&gateway).await;
    let recorded = gateway.work.snapshot(&sandbox.id).join("working-set");
    assert!(
        recorded.is_file(),
        "the pager records the working set in the snapshot"
    );
    let woken = sandbox.get(&gateway, "/sum").await.ok();
    assert!(woken.header("server-timing").contains("wake-prefetch;dur="));
    gateway.finish().await;
}

#[tokio::test]
async fn vector_registers_survive_switches_and_restores() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    sandbox.get(&gateway, "/vectors").await.ok();
    check_registers(&gateway, &sandbox, 150).await;
    sandbox.pause(&gateway).await;
    let woken = sandbox.get(&gateway, "/vectors").await.ok();
    assert!(woken.header("server-timing").starts_with("wake;"));
    check_registers(&gateway, &sandbox, 150).await;
    gateway.finish().await;
}

/// Waits until each process has checked its register this many times more, and asserts that no check failed.
async fn check_registers(gateway: &Gateway, sandbox: &Sandbox, checks: u64) {
    let start = sandbox.get(gateway, "/vectors").await.ok();
    let reply = wait_until("both processes have checked their registers", async || {
        let reply = sandbox.get(gateway, "/vectors").await.ok();
        let enough = ["first", "second"]
            .iter()
            .all(|process| reply.value::<u64>(process) >= start.value::<u64>(process) + checks);
        if enough { Ok(reply) } else { Err(reply.body) }
    })
    .await;
    assert_eq!(reply.value::<u64>("bad"), 0, "{}", reply.body);
}
