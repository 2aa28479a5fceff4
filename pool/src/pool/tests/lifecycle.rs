use std::time::Duration;

use guest_api::envd;
use pool_api::{
    CreateError, Epoch, IfPaused, KillError, Node, Origin, PauseCause, PauseError, Port,
    ResumeError, SandboxState, SnapshotScope, Stage, Start, StopReason,
};
use vmm_api::fake::{Fault, guest::CLOSED_PORT};

use super::{EnterError, Kind, Rig, id, say, spec, wait_for_event};

#[tokio::test]
async fn a_sandbox_is_a_fork_of_its_template_with_an_identity_of_its_own() {
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
    for life in 1..12u32 {
        rig.say("a", &format!("write {} memory {life}", 10 + life))
            .await;
        rig.say("a", &format!("disk-write {} disk {life}", 10 + life))
            .await;
        rig.pause("a").await;
        assert_eq!(rig.state("a").await, SandboxState::Paused);
        for past in 1..=life {
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
async fn nobody_using_it_lets_it_sleep_and_a_request_wakes_it() {
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
    // While the lease is out it stays awake; the idle clock begins when it is dropped.
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(rig.state("a").await, SandboxState::Running);
    assert_eq!(say(&*lease, "hello").await, "hello");
    drop(lease);
    wait_for_event(&mut events, "a", Kind::Paused(PauseCause::Idle)).await;
}

#[tokio::test]
async fn an_explicit_pause_revokes_leases_and_a_late_one_is_refused() {
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
async fn a_hundred_requests_at_a_sleeping_sandbox_are_one_wake() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.pause("a").await;
    let before = rig.fake.counts();
    rig.fake.hold_loads();
    let enters = (0..100).map(|_| {
        let pool = std::sync::Arc::clone(&rig.pool);
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
async fn a_wake_during_a_pause_costs_no_restore() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 7 kept").await;
    rig.say("a", "disk-write 7 kept").await;
    let before = rig.fake.counts();
    rig.fake.hold_captures();
    let pause = tokio::spawn({
        let pool = std::sync::Arc::clone(&rig.pool);
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
    // It goes on, on a new layer: what it writes now is not in the snapshot, and the next snapshot has both.
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
async fn a_kill_leaves_nothing() {
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
    let kept = rig
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
    rig.pool.release_snapshot(&kept).await.unwrap();
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
    // The name is free.
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
async fn what_runs_at_a_shutdown_is_paused_and_found_again() {
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

#[tokio::test]
async fn a_fault_while_awakening_is_told() {
    let rig = Rig::new().await;
    rig.fake.fail_next(Fault::Init);
    let Err(CreateError::Failed { source, .. }) = rig.pool.create(spec("a")).await else {
        panic!()
    };
    assert!(
        super::source_text(&*source).contains("answered 500"),
        "{source}"
    );
    assert_eq!((rig.count("sandboxes"), rig.fake.counts().live), (0, 0));
}
