//! Admission and the blank pool. Specification: "Lifecycle of sandboxes".

use std::time::Duration;

use pool_api::{CreateError, EnterError, IfPaused, Node, SandboxState, SnapshotScope, Stage};
use vmm_api::fake::Fault;

use crate::{Config, ReleaseRatio};

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

#[tokio::test]
async fn blank_whose_monitor_ended_is_not_used() {
    let rig = Rig::new().await;
    while rig.pool.blanks() == 0 {
        tokio::task::yield_now().await;
    }
    let before = rig.fake.counts().blanks;
    // Ends every monitor, the blank's too.
    rig.fake.crash_all();
    rig.create("a").await;
    assert!(rig.fake.counts().blanks > before);
    assert_eq!(rig.say("a", "hello").await, "hello");
}

#[tokio::test]
async fn full_host_pauses_the_longest_idle_sandbox() {
    let rig = Rig::with(|config| {
        config.limits = Limits {
            memory: 2 * MEMORY,
            machines: 9,
        };
        config.least_awake = Duration::ZERO;
        config.room_timeout = Duration::from_millis(300);
    })
    .await;
    let create = async |name: &str| {
        let mut spec = spec(name);
        spec.idle = Some(Duration::from_secs(3600));
        rig.pool.create(spec).await.unwrap();
    };
    create("old").await;
    rig.say("old", "write 7 kept").await;
    create("used").await;
    rig.say("old", "hello").await;
    let lease = rig.enter("used").await;
    create("new").await;
    assert_eq!(rig.state("old").await, SandboxState::Paused);
    // A lease keeps its sandbox running, so the host has no room now but for the newest.
    rig.say("old", "read 7").await;
    assert_eq!(rig.state("new").await, SandboxState::Paused);
    assert_eq!(rig.state("used").await, SandboxState::Running);
    let other = rig.enter("old").await;
    let refused = rig.pool.enter(&id("new"), IfPaused::Wake).await;
    assert!(
        matches!(refused, Err(EnterError::NoRoom { .. })),
        "{refused:?}"
    );
    drop((lease, other));
    rig.say("new", "hello").await;
}

#[tokio::test]
async fn starts_on_a_full_host_wait_for_idle_sandboxes() {
    let rig = Rig::with(|config| {
        config.limits.machines = 2;
        config.least_awake = Duration::from_millis(50);
    })
    .await;
    let names: Vec<String> = (0..8).map(|number| format!("s{number}")).collect();
    for name in &names {
        let mut spec = spec(name);
        spec.idle = Some(Duration::from_secs(3600));
        rig.pool.create(spec).await.unwrap();
        rig.pause(name).await;
    }
    let answers = names.iter().map(|name| rig.say(name, "hello"));
    let answers = futures::future::join_all(answers).await;
    assert_eq!(answers, vec!["hello"; names.len()]);
    // A lease that is returned makes room for the start that waits for it.
    let leases = [rig.enter("s0").await, rig.enter("s1").await];
    let pool = std::sync::Arc::clone(&rig.pool);
    let waiting = tokio::spawn(async move { pool.enter(&id("s2"), IfPaused::Wake).await });
    while rig.state("s2").await != SandboxState::Starting {
        tokio::task::yield_now().await;
    }
    drop(leases);
    drop(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn start_waits_for_the_end_of_a_live_capture() {
    let rig = Rig::with(|config| {
        config.limits.machines = 1;
        config.least_awake = Duration::ZERO;
    })
    .await;
    let idle = |name: &str| {
        let mut spec = spec(name);
        spec.idle = Some(Duration::from_secs(3600));
        spec
    };
    rig.pool.create(idle("b")).await.unwrap();
    rig.pause("b").await;
    rig.pool.create(idle("a")).await.unwrap();
    let captures = rig.fake.counts().captures;
    rig.fake.hold_captures();
    let pool = std::sync::Arc::clone(&rig.pool);
    let snapshot = tokio::spawn(async move { pool.snapshot(&id("a"), SnapshotScope::Full).await });
    rig.fake.captures_begun(captures + 1).await;
    let pool = std::sync::Arc::clone(&rig.pool);
    let waiting = tokio::spawn(async move { pool.enter(&id("b"), IfPaused::Wake).await });
    while rig.state("b").await != SandboxState::Starting {
        tokio::task::yield_now().await;
    }
    // The only sandbox that can be paused is refused now and asked again.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    rig.fake.release_captures();
    drop(waiting.await.unwrap().unwrap());
    snapshot.await.unwrap().unwrap();
}

#[tokio::test]
async fn paused_sandboxes_keep_what_the_ratio_does_not_release() {
    let with_ratio = |ratio| {
        move |config: &mut Config| {
            config.limits.memory = 2 * MEMORY;
            config.paused_release = ReleaseRatio::clamped(ratio);
        }
    };
    // At 0, paused sandboxes fill the host, also after a restart, and every wake succeeds.
    let full = Rig::with(with_ratio(0.0)).await;
    for name in ["a", "b"] {
        full.create(name).await;
        full.pause(name).await;
    }
    let full = full.crash_with(with_ratio(0.0)).await;
    let refused = full.pool.create(spec("c")).await;
    assert!(
        matches!(refused, Err(CreateError::NoRoom { .. })),
        "{refused:?}"
    );
    full.say("a", "hello").await;
    full.say("b", "hello").await;
    full.pool.kill(&id("a")).await.unwrap();
    full.create("c").await;
    // In between, wakes can be refused.
    let half = Rig::with(with_ratio(0.5)).await;
    for name in ["a", "b"] {
        half.create(name).await;
        half.pause(name).await;
    }
    half.create("c").await;
    let Err(EnterError::NoRoom { diagnostic }) = half.pool.enter(&id("a"), IfPaused::Wake).await
    else {
        panic!()
    };
    assert_eq!(
        diagnostic,
        "resume rejected by paused_resource_release_ratio policy: need 10 MiB > quota 8 MiB"
    );
    half.pool.kill(&id("c")).await.unwrap();
    half.say("a", "hello").await;
    half.say("b", "hello").await;
}

#[tokio::test]
async fn slow_starts_are_bounded() {
    let rig = Rig::with(|config| {
        config.concurrent_starts = 1;
        config.slow_starts = 1;
        config.guest_init_timeout = Duration::from_secs(4);
    })
    .await;
    for name in ["a", "b", "c"] {
        rig.create(name).await;
        rig.pause(name).await;
    }
    for _ in 0..2 {
        rig.fake.fail_next(Fault::InitHangs);
    }
    let enter = |name: &'static str| {
        let pool = std::sync::Arc::clone(&rig.pool);
        async move { pool.enter(&id(name), IfPaused::Wake).await.map(drop) }
    };
    let (hung, other) = (tokio::spawn(enter("a")), tokio::spawn(enter("b")));
    while rig.fake.counts().loads < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Both permits are taken until the first guest's init has failed.
    let third = tokio::spawn(enter("c"));
    assert!(hung.await.unwrap().is_err());
    assert!(!third.is_finished());
    third.await.unwrap().unwrap();
    assert!(other.await.unwrap().is_err());
}

#[tokio::test]
async fn sandbox_without_an_idle_window_is_not_evicted() {
    let rig = Rig::with(|config| config.limits.machines = 1).await;
    rig.create("a").await;
    let refused = rig.pool.create(spec("b")).await;
    assert!(
        matches!(refused, Err(CreateError::NoRoom { .. })),
        "{refused:?}"
    );
    assert_eq!(rig.state("a").await, SandboxState::Running);
}

#[tokio::test]
async fn concurrent_starts_are_bounded_and_report_their_queue() {
    let rig = Rig::with(|config| config.concurrent_starts = 1).await;
    for name in ["a", "b"] {
        rig.create(name).await;
        rig.pause(name).await;
    }
    let loads = rig.fake.counts().loads;
    rig.fake.hold_loads();
    let wake = |name: &'static str| {
        let pool = std::sync::Arc::clone(&rig.pool);
        tokio::spawn(async move { pool.enter(&id(name), IfPaused::Wake).await })
    };
    let first = wake("a");
    while rig.fake.counts().loads == loads {
        tokio::task::yield_now().await;
    }
    let asked = std::time::Instant::now();
    let second = wake("b");
    while rig.state("b").await != SandboxState::Starting {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.fake.counts().loads, loads + 1);
    rig.fake.release_loads();
    drop(first.await.unwrap().unwrap());
    let lease = second.await.unwrap().unwrap();
    let waited = asked.elapsed();
    let report = lease.wake().expect("the lease waited for a wake");
    let queued = report
        .stages
        .iter()
        .find(|(stage, _)| *stage == Stage::Queue);
    assert!(queued.is_some_and(|(_, time)| !time.is_zero() && *time <= waited));
}

#[tokio::test]
async fn guest_that_does_not_answer_blocks_no_other_start() {
    let rig = Rig::with(|config| config.concurrent_starts = 1).await;
    for name in ["a", "b"] {
        rig.create(name).await;
        rig.pause(name).await;
    }
    rig.fake.fail_next(Fault::InitHangs);
    let pool = std::sync::Arc::clone(&rig.pool);
    let hung = tokio::spawn(async move { pool.enter(&id("a"), IfPaused::Wake).await });
    while rig.state("a").await != SandboxState::Starting {
        tokio::task::yield_now().await;
    }
    rig.say("b", "hello").await;
    assert_eq!(rig.state("a").await, SandboxState::Starting);
    hung.abort();
}

#[tokio::test]
async fn create_below_the_disk_reserve_is_refused() {
    let rig = Rig::with(|config| config.disk_reserve = u64::MAX).await;
    let refused = rig.pool.create(spec("a")).await;
    let Err(CreateError::NoDiskSpace { diagnostic }) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        diagnostic.contains("MiB are reserved for pauses"),
        "{diagnostic}"
    );
    assert_eq!(rig.count("sandboxes"), 0);
}

#[tokio::test]
async fn start_counts_until_its_first_requests_end() {
    let permits = crate::start_permits::StartPermits::new(1, 1);
    let gate = std::sync::Arc::new(crate::gate::Gate::new());
    gate.open();
    let pass = gate.enter().unwrap();
    let hour = Duration::from_secs(3600);
    let held = permits.acquire().await;
    let holding = tokio::spawn(held.hold_for_first_requests(std::sync::Arc::clone(&gate), hour));
    let next = permits.acquire();
    tokio::pin!(next);
    assert!(futures::poll!(&mut next).is_pending());
    drop(pass);
    let permit = next.await;
    holding.await.unwrap();
    // A long request does not hold the permit for longer than the bound.
    let _pass = gate.enter().unwrap();
    permit.hold_for_first_requests(gate, Duration::ZERO).await;
    drop(permits.acquire().await);
}

#[tokio::test(start_paused = true)]
async fn hung_start_returns_its_slow_permit() {
    let permits = crate::start_permits::StartPermits::new(1, 1);
    let mut hung = permits.acquire().await;
    hung.become_slow().await;
    // Neither the usual permit nor that of slow starts is taken.
    let mut next = permits.acquire().await;
    let became_slow = tokio::time::timeout(Duration::from_secs(60), next.become_slow()).await;
    assert!(became_slow.is_ok());
    drop(permits.acquire().await);
}
