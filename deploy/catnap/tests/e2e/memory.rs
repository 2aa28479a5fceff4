//! Memory and registers over pauses.

use reqwest::Method;
use serde_json::json;

use crate::rig::{Gateway, Sandbox, until};

/// A buffer of 8 MiB is as it was after two pauses, and what was changed between them is in it.
async fn comes_back_twice(gateway: &Gateway) -> Sandbox {
    let sandbox = gateway.probed(json!({})).await;
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
async fn memory_shared_from_ram_comes_back() {
    let Some(gateway) = Gateway::with(&["--memory", "cow"]).await else {
        return;
    };
    let sandbox = comes_back_twice(&gateway).await;
    sandbox.pause(&gateway).await;
    let timing = sandbox.get(&gateway, "/sum").await.ok();
    assert!(
        !timing.header("server-timing").contains("prefetch"),
        "nothing came by a pager"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn memory_brought_page_by_page_comes_back() {
    let Some(gateway) = Gateway::with(&["--memory", "paged"]).await else {
        return;
    };
    let sandbox = comes_back_twice(&gateway).await;
    sandbox.pause(&gateway).await;
    let recorded = gateway.work.snapshot(&sandbox.id).join("working-set");
    assert!(
        recorded.is_file(),
        "what the life before touched is noted beside what it wakes from"
    );
    let woken = sandbox.get(&gateway, "/sum").await.ok();
    assert!(woken.header("server-timing").contains("wake-prefetch;dur="));
    gateway.finish().await;
}

#[tokio::test]
async fn vector_registers_of_two_processes_stay_apart() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    sandbox.get(&gateway, "/vectors").await.ok();
    keep_for(&gateway, &sandbox, 150).await;
    sandbox.pause(&gateway).await;
    let woken = sandbox.get(&gateway, "/vectors").await.ok();
    assert!(woken.header("server-timing").starts_with("wake;"));
    keep_for(&gateway, &sandbox, 150).await;
    gateway.finish().await;
}

/// Waits until each process has kept its pattern so many times more, some milliseconds each, and none was spoilt.
async fn keep_for(gateway: &Gateway, sandbox: &Sandbox, windows: u64) {
    let begun = sandbox.get(gateway, "/vectors").await.ok();
    let done = until("both processes have run for some time", async || {
        let now = sandbox.get(gateway, "/vectors").await.ok();
        let enough = ["first", "second"]
            .iter()
            .all(|who| now.value::<u64>(who) >= begun.value::<u64>(who) + windows);
        if enough { Ok(now) } else { Err(now.body) }
    })
    .await;
    assert_eq!(done.value::<u64>("bad"), 0, "{}", done.body);
}

#[tokio::test]
async fn a_boot_in_place_of_a_wake_finds_what_was_written_just_before() {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let boot = sandbox.read(&gateway, BOOT).await.ok().body;
    sandbox.write(&gateway, "/home/user/kept", "kept\n").await;
    sandbox.pause(&gateway).await;
    let path = format!("/v2/sandboxes/{}/connect", sandbox.id);
    let body = json!({ "memory": false, "timeout": 3600 });
    let (status, answer) = gateway.api(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    assert_ne!(sandbox.read(&gateway, BOOT).await.ok().body, boot);
    let kept = sandbox.read(&gateway, "/home/user/kept").await.ok().body;
    assert_eq!(kept, "kept\n");
    gateway.finish().await;
}
