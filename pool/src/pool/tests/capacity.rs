//! Admission and the blank pool. Specification: "Lifecycle of sandboxes".

use pool_api::{CreateError, EnterError, IfPaused, Node, SandboxState};
use vmm_api::fake::Fault;

use super::{Limits, MEMORY, Rig, id, spec};

#[tokio::test]
async fn full_host_refuses_until_a_kill_frees_room() {
    let rig = Rig::with(|config| {
        config.limits = Limits {
            memory: 2 * MEMORY,
            machines: 9,
        }
    })
    .await;
    rig.create("a").await;
    rig.pause("a").await;
    rig.create("b").await;
    rig.create("c").await;
    let Err(EnterError::NoRoom { diagnostic }) = rig.pool.enter(&id("a"), IfPaused::Wake).await
    else {
        panic!()
    };
    assert_eq!(
        diagnostic,
        "4 MiB of guest memory are needed, 0 of 8 MiB are free"
    );
    assert!(matches!(
        rig.pool.create(spec("d")).await,
        Err(CreateError::NoRoom { .. })
    ));
    assert_eq!(rig.state("a").await, SandboxState::Paused);
    rig.pool.kill(&id("b")).await.unwrap();
    rig.say("a", "hello").await;
}

#[tokio::test]
async fn blank_pool_refills_and_reports_spawn_failure() {
    let rig = Rig::new().await;
    while rig.pool.blanks() == 0 {
        tokio::task::yield_now().await;
    }
    let before = rig.fake.counts().blanks;
    rig.create("a").await;
    while rig.pool.blanks() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.fake.counts().blanks, before + 1);
    let none = Rig::with(|config| config.blanks.clear()).await;
    none.fake.fail_next(Fault::Spawn);
    let Err(CreateError::Failed { source, .. }) = none.pool.create(spec("a")).await else {
        panic!()
    };
    assert!(super::source_text(&*source).contains("spawn monitor"));
    none.create("a").await;
}
