//! Restarts after a crash and after a shutdown. Specification: "Lifecycle of sandboxes".

use std::fs;

use pool_api::{Epoch, Node, SandboxState};

use super::{Rig, say, spec};

#[tokio::test]
async fn pool_crash_keeps_paused_sandboxes_only() {
    let rig = Rig::new().await;
    for name in ["paused", "woken", "running"] {
        rig.create(name).await;
        rig.say(name, "write 7 kept").await;
    }
    rig.pause("paused").await;
    rig.pause("woken").await;
    rig.say("woken", "write 7 lost").await;
    // The state that a kill in the middle of a capture leaves.
    fs::create_dir(rig.data("staging").join("new-half")).unwrap();
    fs::create_dir(rig.data("snapshots").join("0".repeat(64))).unwrap();
    fs::create_dir_all(rig.data("run").join("99")).unwrap();
    let rig = rig.crash().await;
    let names: Vec<String> = rig
        .pool
        .list()
        .await
        .iter()
        .map(|info| info.id.to_string())
        .collect();
    assert_eq!(names, ["paused", "woken"]);
    assert_eq!(
        (
            rig.count("sandboxes"),
            rig.count("staging"),
            rig.count("snapshots")
        ),
        (2, 0, 3)
    );
    assert!(!rig.data("run").join("99").exists());
    for name in ["paused", "woken"] {
        assert_eq!(rig.say(name, "read 7").await, "kept");
    }
    // An epoch that may have run before the crash is not reused.
    assert!(rig.enter("woken").await.epoch() > Epoch(2));
    assert_eq!(say(&*rig.enter("paused").await, "hello").await, "hello");
    rig.pool.create(spec("running")).await.unwrap();
}

#[tokio::test]
async fn shutdown_pauses_running_sandboxes() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 9 kept").await;
    rig.pool.shutdown().await;
    assert_eq!((rig.fake.counts().live, rig.count("run")), (0, 0));
    let rig = rig.crash().await;
    assert_eq!(rig.state("a").await, SandboxState::Paused);
    let loads = rig.fake.counts().loads;
    assert_eq!(rig.say("a", "read 9").await, "kept");
    assert_eq!(rig.fake.counts().loads, loads + 1);
    assert_eq!(
        rig.fake.inits().last().unwrap()["accessToken"],
        "token of a"
    );
}
