//! Wakes by requests.

use futures::future::join_all;
use serde_json::json;

use crate::rig::Gateway;

#[tokio::test]
async fn request_restores_the_same_guest() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    sandbox.write(&gateway, "/home/user/file", "text\n").await;
    let identity = sandbox.get(&gateway, "/identity").await.ok();
    let before = sandbox.get(&gateway, "/count").await.ok();

    sandbox.pause(&gateway).await;
    let woken = sandbox.get(&gateway, "/count").await.ok();
    assert_eq!(woken.value::<u64>("hits"), before.value::<u64>("hits") + 1);
    assert_eq!(woken.value::<u64>("pid"), before.value::<u64>("pid"));
    assert!(woken.value::<u64>("ticks") >= before.value::<u64>("ticks"));
    let timing = woken.header("server-timing");
    assert!(timing.starts_with("wake;dur="), "{timing}");
    for stage in [
        "desc=\"restore\"",
        "wake-open;",
        "wake-load;",
        "wake-awaken;",
        "route;",
        "admit;",
        "dial;",
    ] {
        assert!(timing.contains(stage), "{stage} in {timing}");
    }

    let again = sandbox.get(&gateway, "/identity").await.ok();
    for same in ["boot", "hostname", "machine", "pid"] {
        assert_eq!(
            again.value::<String>(same),
            identity.value::<String>(same),
            "{same}"
        );
    }
    assert!(
        !again.header("server-timing").contains("wake;"),
        "the sandbox ran before the request"
    );
    assert_eq!(
        sandbox.read(&gateway, "/home/user/file").await.ok().body,
        "text\n"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn fifty_concurrent_requests_cause_one_wake() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    let first = sandbox
        .get(&gateway, "/count")
        .await
        .ok()
        .value::<u64>("hits");
    sandbox.pause(&gateway).await;
    let epoch = gateway.work.epoch(&sandbox.id);

    let replies = join_all((0..50).map(|_| sandbox.get(&gateway, "/count"))).await;
    let mut hits: Vec<u64> = replies
        .into_iter()
        .map(|reply| reply.ok().value("hits"))
        .collect();
    hits.sort_unstable();
    assert_eq!(
        hits,
        (first + 1..=first + 50).collect::<Vec<_>>(),
        "one guest answered each request once"
    );
    sandbox.pause(&gateway).await;
    assert_eq!(
        gateway.work.epoch(&sandbox.id),
        epoch + 1,
        "one epoch began between the two pauses"
    );
    gateway.finish().await;
}
