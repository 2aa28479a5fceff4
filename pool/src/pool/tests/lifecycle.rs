//! Starting, pausing, waking and killing. Specification: "Lifecycle of sandboxes".

use std::{sync::Arc, time::Duration};

use guest_api::envd;
use pool_api::{
    CreateError, EnterError, Epoch, GuestMetrics, IfPaused, KillError, Node, Origin, PauseCause,
    PauseError, Port, ResumeError, SandboxState, SnapshotScope, Stage, Start, StopReason,
};
use vmm_api::fake::guest::CLOSED_PORT;

use super::{Kind, Rig, id, say, spec, wait_for_event};

#[tokio::test]
async fn new_sandbox_forks_its_template_with_own_identity() {
    let rig = Rig::new().await;
    let info = rig.create("a").await;
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(1)));
    rig.create("b").await;
    assert_eq!(rig.say("a", "read 1").await, "booted");
    assert_eq!(rig.say("a", "hello").await, "hello");
    assert_eq!(rig.say("a", "disk-read 0").await, "d".repeat(4096));
    let inits = rig.fake.inits();
    let [a, b] = &inits[..] else {
        panic!("{inits:?}")
    };
    assert_eq!(
        (&a["sandboxId"], &a["hostname"], &a["templateId"]),
        (&"a".into(), &"a".into(), &"base".into())
    );
    assert_eq!(a["accessToken"], "token of a");
    assert_eq!(a["envVars"]["COLOUR"], "blue");
    for field in [
        "entropy",
        "machineId",
        "sandboxId",
        "hostname",
        "accessToken",
    ] {
        assert_ne!(a[field], b[field], "{field}");
    }
    let lease = rig.enter("a").await;
    assert!(lease.wake().is_none() && lease.epoch() == Epoch(1));
    let closed = lease
        .dial(Port::try_from(CLOSED_PORT).unwrap())
        .await
        .unwrap_err();
    assert!(matches!(closed, pool_api::DialError::Closed(_)));
    assert!(matches!(
        rig.pool.create(spec("a")).await,
        Err(CreateError::Exists(_))
    ));
    let mut lost = spec("c");
    lost.origin = Origin::Template("none".parse().unwrap());
    assert!(matches!(
        rig.pool.create(lost).await,
        Err(CreateError::NoTemplate(_))
    ));
}

#[tokio::test]
async fn memory_and_disk_outlive_pauses() {
    let rig = Rig::new().await;
    rig.create("a").await;
    for round in 1..12u32 {
        rig.say("a", &format!("write {} memory {round}", 10 + round))
            .await;
        rig.say("a", &format!("disk-write {} disk {round}", 10 + round))
            .await;
        rig.pause("a").await;
        assert_eq!(rig.state("a").await, SandboxState::Paused);
        for past in 1..=round {
            assert_eq!(
                rig.say("a", &format!("read {}", 10 + past)).await,
                format!("memory {past}")
            );
            assert_eq!(
                rig.say("a", &format!("disk-read {}", 10 + past)).await,
                format!("disk {past}")
            );
        }
        assert_eq!(rig.say("a", "read 1").await, "booted");
        assert_eq!(rig.say("a", "disk-read 1").await, "d".repeat(4096));
    }
    // Folding frees the snapshots of early rounds.
    assert!(rig.count("snapshots") < 8, "{}", rig.count("snapshots"));
    let inits = rig.fake.inits();
    let (first, last) = (&inits[0], inits.last().unwrap());
    assert_ne!(first["entropy"], last["entropy"]);
    assert_eq!(
        (&last["machineId"], &last["hostname"]),
        (&().into(), &().into())
    );
    assert_eq!(rig.fake.counts().live, 1);
}

#[tokio::test]
async fn idle_sandbox_pauses_and_a_request_wakes_it() {
    let rig = Rig::new().await;
    let mut events = rig.pool.events();
    let mut idle = spec("a");
    idle.idle = Some(Duration::from_millis(30));
    rig.pool.create(idle).await.unwrap();
    wait_for_event(&mut events, "a", Kind::Paused(PauseCause::Idle)).await;
    assert!(matches!(
        rig.pool.enter(&id("a"), IfPaused::Fail).await,
        Err(EnterError::Paused(_))
    ));
    let lease = rig.enter("a").await;
    let report = lease.wake().unwrap();
    assert_eq!(report.start, Start::Restore);
    let stages: Vec<Stage> = report.stages.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(
        stages,
        [
            Stage::Queue,
            Stage::Blank,
            Stage::Open,
            Stage::Load,
            Stage::GuestInit
        ]
    );
    assert_eq!(lease.epoch(), Epoch(2));
    wait_for_event(&mut events, "a", Kind::Started).await;
    // A lease keeps it running; the idle clock starts when the lease is dropped.
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(rig.state("a").await, SandboxState::Running);
    assert_eq!(say(&*lease, "hello").await, "hello");
    drop(lease);
    wait_for_event(&mut events, "a", Kind::Paused(PauseCause::Idle)).await;
}

#[tokio::test]
async fn explicit_pause_revokes_leases() {
    let rig = Rig::new().await;
    rig.create("a").await;
    let lease = rig.enter("a").await;
    let name = id("a");
    let (paused, ()) = tokio::join!(
        rig.pool.pause(&name, Epoch(1), SnapshotScope::Full),
        async {
            lease.revoked().await;
            drop(lease);
        }
    );
    let snapshot = paused.unwrap().id;
    assert_eq!(
        rig.pool.info(&id("a")).await.unwrap().snapshot,
        Some(snapshot.clone())
    );
    assert_eq!(
        rig.pool
            .snapshot(&id("a"), SnapshotScope::Full)
            .await
            .unwrap()
            .id,
        snapshot
    );
    assert!(matches!(
        rig.pool
            .pause(&id("a"), Epoch(1), SnapshotScope::Full)
            .await,
        Err(PauseError::AlreadyPaused { .. })
    ));
    let info = rig
        .pool
        .resume(&id("a"), SnapshotScope::Full)
        .await
        .unwrap();
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(2)));
    assert!(matches!(
        rig.pool.resume(&id("a"), SnapshotScope::Full).await,
        Err(ResumeError::AlreadyRunning(_))
    ));
    assert!(matches!(
        rig.pool
            .pause(&id("a"), Epoch(1), SnapshotScope::Full)
            .await,
        Err(PauseError::Conflict { .. })
    ));
    assert!(matches!(
        rig.pool
            .pause(&id("b"), Epoch(1), SnapshotScope::Full)
            .await,
        Err(PauseError::NotFound(_))
    ));
}

#[tokio::test]
async fn hundred_concurrent_requests_cause_one_wake() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.pause("a").await;
    let before = rig.fake.counts();
    rig.fake.hold_loads();
    let enters = (0..100).map(|_| {
        let pool = Arc::clone(&rig.pool);
        tokio::spawn(async move { pool.enter(&id("a"), IfPaused::Wake).await.unwrap() })
    });
    let enters: Vec<_> = enters.collect();
    rig.fake.release_loads();
    let leases = futures::future::join_all(enters).await;
    assert!(
        leases
            .into_iter()
            .all(|lease| lease.unwrap().epoch() == Epoch(2))
    );
    let after = rig.fake.counts();
    assert_eq!((after.loads - before.loads, after.live), (1, 1));
}

#[tokio::test]
async fn wake_during_pause_keeps_the_machine() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 7 kept").await;
    rig.say("a", "disk-write 7 kept").await;
    let before = rig.fake.counts();
    rig.fake.hold_captures();
    let pause = tokio::spawn({
        let pool = Arc::clone(&rig.pool);
        async move { pool.pause(&id("a"), Epoch(1), SnapshotScope::Full).await }
    });
    rig.fake.captures_begun(before.captures + 1).await;
    assert_eq!(rig.state("a").await, SandboxState::Pausing);
    let refused = rig.pool.enter(&id("a"), IfPaused::Fail).await;
    assert!(matches!(refused, Err(EnterError::Paused(_))));
    let mut enter = std::pin::pin!(rig.enter("a"));
    assert!(futures::poll!(&mut enter).is_pending());
    rig.fake.release_captures();
    let lease = enter.await;
    let snapshot = pause.await.unwrap().unwrap();
    assert_eq!(lease.wake().unwrap().start, Start::Unpause);
    assert_eq!(rig.fake.counts().loads, before.loads);
    assert_eq!(lease.epoch(), Epoch(2));
    // It runs on a new layer: later writes are not in this snapshot, and the next one has both.
    assert_eq!(say(&*lease, "disk-read 7").await, "kept");
    say(&*lease, "disk-write 8 later").await;
    drop(lease);
    assert_eq!(
        rig.pool.info(&id("a")).await.unwrap().snapshot,
        Some(snapshot.id)
    );
    rig.pause("a").await;
    for (line, answer) in [
        ("read 7", "kept"),
        ("disk-read 7", "kept"),
        ("disk-read 8", "later"),
    ] {
        assert_eq!(rig.say("a", line).await, answer);
    }
}

#[tokio::test]
async fn kill_removes_all_sandbox_state() {
    let rig = Rig::new().await;
    let snapshots = rig.count("snapshots");
    for name in ["running", "paused", "woken"] {
        rig.create(name).await;
        rig.say(name, "write 5 x").await;
        rig.say(name, "disk-write 5 x").await;
    }
    rig.pause("paused").await;
    rig.pause("woken").await;
    rig.say("woken", "hello").await;
    let retained = rig
        .pool
        .snapshot(&id("woken"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    assert!(rig.count("snapshots") > snapshots);
    let mut events = rig.pool.events();
    let lease = rig.enter("running").await;
    for name in ["running", "paused", "woken"] {
        rig.pool.kill(&id(name)).await.unwrap();
        assert!(rig.pool.info(&id(name)).await.is_none());
        assert!(matches!(
            rig.pool.kill(&id(name)).await,
            Err(KillError::NotFound(_))
        ));
        wait_for_event(&mut events, name, Kind::Stopped(StopReason::Killed)).await;
    }
    rig.pool.release_snapshot(&retained).await.unwrap();
    lease.revoked().await;
    assert!(matches!(
        lease.dial(envd::AGENT_PORT.try_into().unwrap()).await,
        Err(pool_api::DialError::Gone)
    ));
    drop(lease);
    assert_eq!(
        (
            rig.count("snapshots"),
            rig.count("sandboxes"),
            rig.count("staging")
        ),
        (snapshots, 0, 0)
    );
    assert_eq!(rig.fake.counts().live, 0);
    // The id is free.
    rig.create("running").await;
    rig.pool.kill(&id("running")).await.unwrap();
    rig.pool.shutdown().await;
    assert_eq!(rig.count("run"), 0);
    assert!(matches!(
        rig.pool.create(spec("late")).await,
        Err(CreateError::Failed { .. })
    ));
}

#[tokio::test]
async fn kill_cancels_starts_and_pauses() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.pause("a").await;
    rig.fake.hold_loads();
    let loads = rig.fake.counts().loads;
    let pool = Arc::clone(&rig.pool);
    let enter = tokio::spawn(async move { pool.enter(&id("a"), IfPaused::Wake).await.map(drop) });
    while rig.fake.counts().loads == loads {
        tokio::task::yield_now().await;
    }
    rig.pool.kill(&id("a")).await.unwrap();
    assert!(enter.await.unwrap().is_err());
    rig.fake.release_loads();
    rig.create("b").await;
    rig.fake.hold_captures();
    let captures = rig.fake.counts().captures;
    let pool = Arc::clone(&rig.pool);
    let pause =
        tokio::spawn(async move { pool.pause(&id("b"), Epoch(1), SnapshotScope::Full).await });
    rig.fake.captures_begun(captures + 1).await;
    rig.pool.kill(&id("b")).await.unwrap();
    assert!(matches!(
        pause.await.unwrap(),
        Err(PauseError::Conflict { .. })
    ));
    rig.fake.release_captures();
    assert_eq!(
        (
            rig.fake.counts().live,
            rig.count("snapshots"),
            rig.count("sandboxes")
        ),
        (0, 1, 0)
    );
    assert_eq!(rig.count("staging"), 0);
}

#[tokio::test]
async fn metrics_query_does_not_wake() {
    let rig = Rig::with_data("a").await;
    let GuestMetrics {
        cpus, memory_total, ..
    } = rig.pool.metrics(&id("a")).await.unwrap();
    assert_eq!((cpus, memory_total), (1, 4 << 20));
    rig.pause("a").await;
    assert_eq!(rig.pool.metrics(&id("a")).await, None);
    assert_eq!(rig.state("a").await, SandboxState::Paused);
    assert_eq!(say(&*rig.enter("a").await, "read 7").await, "memory");
}
