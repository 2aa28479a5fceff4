//! Failures of machines, captures, files and guests. Specification: "Lifecycle of sandboxes".

use std::{fs, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use pool_api::{
    CreateError, EnterError, Epoch, ForkError, ForkSpec, IfPaused, Node, PauseCause, PauseError,
    SandboxState, SnapshotError, SnapshotScope, StopReason,
};
use vmm_api::fake::Fault;

use super::{Kind, Rig, failed, id, say, source_text, spec, try_say, wait_for_event};

#[tokio::test]
async fn failed_capture_leaves_the_guest_running() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 7 kept").await;
    for (fault, text) in [
        (Fault::Capture, "injected fault"),
        (Fault::Space, "no space left"),
    ] {
        rig.fake.fail_next(fault);
        let Err(error @ PauseError::Failed { .. }) = rig
            .pool
            .pause(&id("a"), Epoch(1), SnapshotScope::Full)
            .await
        else {
            panic!()
        };
        assert!(
            source_text(&error).contains(text),
            "{}",
            source_text(&error)
        );
        assert_eq!(rig.say("a", "read 7").await, "kept");
        let info = rig.pool.info(&id("a")).await.unwrap();
        assert_eq!(
            (info.state, info.epoch, info.snapshot),
            (SandboxState::Running, Epoch(1), None)
        );
        assert!(info.last_error.unwrap().contains(text));
        assert_eq!((rig.count("snapshots"), rig.count("staging")), (1, 0));
    }
    rig.fake.fail_next(Fault::Capture);
    assert!(matches!(
        rig.pool.snapshot(&id("a"), SnapshotScope::Full).await,
        Err(SnapshotError::Failed { .. })
    ));
    rig.fake.fail_next(Fault::Capture);
    let child = ForkSpec {
        id: id("b"),
        epoch: Epoch(1),
        access_token: None,
    };
    assert!(matches!(
        rig.pool.fork(&id("a"), vec![child]).await,
        Err(ForkError::Failed { .. })
    ));
    assert_eq!(rig.say("a", "read 7").await, "kept");
    rig.pause("a").await;
    assert_eq!(rig.pool.info(&id("a")).await.unwrap().last_error, None);
}

#[tokio::test]
async fn failed_restore_stays_paused_and_next_request_works() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 7 kept").await;
    rig.pause("a").await;
    for fault in [Fault::Load, Fault::Resume, Fault::Init] {
        rig.fake.fail_next(fault);
        failed(rig.pool.enter(&id("a"), IfPaused::Wake).await);
        let info = rig.pool.info(&id("a")).await.unwrap();
        assert_eq!(info.state, SandboxState::Paused);
        assert!(info.last_error.is_some());
        assert_eq!(rig.fake.counts().live, 0, "{fault:?}");
        assert_eq!(rig.say("a", "read 7").await, "kept");
        assert_eq!(rig.pool.info(&id("a")).await.unwrap().last_error, None);
        rig.pause("a").await;
    }
}

#[tokio::test]
async fn repeated_wake_failures_back_off() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.pause("a").await;
    for _ in 0..2 {
        rig.fake.fail_next(Fault::Load);
        failed(rig.pool.enter(&id("a"), IfPaused::Wake).await);
    }
    let loads = rig.fake.counts().loads;
    let refused = rig.pool.enter(&id("a"), IfPaused::Wake).await;
    let Err(EnterError::Backoff {
        retry_after_secs, ..
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(retry_after_secs, 1);
    assert_eq!(
        rig.fake.counts().loads,
        loads,
        "no attempt before it is due"
    );
    // The owner's call is not refused, and its success ends the back-off.
    rig.pool
        .resume(&id("a"), SnapshotScope::Full)
        .await
        .unwrap();
    rig.pause("a").await;
    rig.say("a", "hello").await;
}

#[tokio::test]
async fn failed_guest_init_fails_the_create() {
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

#[tokio::test]
async fn damaged_snapshot_is_named_and_kept() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 7 kept").await;
    rig.say("a", "disk-write 7 kept").await;
    rig.pause("a").await;
    let snapshot = rig.pool.info(&id("a")).await.unwrap().snapshot.unwrap();
    for file in ["manifest", "machine", "memory", "disk0"] {
        let path: PathBuf = rig.data("snapshots").join(snapshot.as_str()).join(file);
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 9).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 9).unwrap();
        let text = failed(rig.pool.enter(&id("a"), IfPaused::Wake).await);
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(rig.state("a").await, SandboxState::Paused);
        // Other sandboxes work, and garbage collection keeps its files.
        rig.create("b").await;
        rig.pool.kill(&id("b")).await.unwrap();
        file.write_all_at(&byte, 9).unwrap();
        assert_eq!(rig.say("a", "read 7").await, "kept");
        assert_eq!(rig.say("a", "disk-read 7").await, "kept");
        rig.fake.fail_next(Fault::Capture);
        assert!(
            rig.pool
                .pause(
                    &id("a"),
                    rig.pool.info(&id("a")).await.unwrap().epoch,
                    SnapshotScope::Full,
                )
                .await
                .is_err()
        );
        rig.fake.crash_all();
        let mut info = rig.pool.get(&id("a")).unwrap().info.clone();
        info.wait_for(|info| info.state == SandboxState::Paused)
            .await
            .unwrap();
        assert_eq!(
            rig.pool.info(&id("a")).await.unwrap().snapshot.as_ref(),
            Some(&snapshot)
        );
    }
}

#[tokio::test]
async fn monitor_killed_mid_request_converges() {
    let rig = Rig::new().await;
    rig.create("new").await;
    rig.create("old").await;
    rig.say("old", "write 7 kept").await;
    rig.pause("old").await;
    rig.say("old", "write 7 lost").await;
    let (new, old) = (rig.enter("new").await, rig.enter("old").await);
    let (mut of_new, mut of_old) = (rig.pool.events(), rig.pool.events());
    assert_eq!(try_say(&*new, "die").await, None);
    assert_eq!(try_say(&*old, "die").await, None);
    tokio::join!(new.revoked(), old.revoked());
    wait_for_event(&mut of_new, "new", Kind::Stopped(StopReason::Crashed)).await;
    wait_for_event(&mut of_old, "old", Kind::Paused(PauseCause::MachineLost)).await;
    drop((new, old));
    assert!(rig.pool.info(&id("new")).await.is_none());
    assert!(
        rig.pool
            .info(&id("old"))
            .await
            .unwrap()
            .last_error
            .unwrap()
            .contains("signal 9")
    );
    assert_eq!(rig.say("old", "read 7").await, "kept");
    assert_eq!(rig.count("sandboxes"), 1);
}

#[tokio::test]
async fn machine_lost_during_capture_falls_back() {
    let rig = Rig::new().await;
    let mut events = rig.pool.events();
    rig.create("a").await;
    rig.say("a", "write 7 kept").await;
    rig.pause("a").await;
    rig.say("a", "write 7 lost").await;
    let captures = rig.fake.counts().captures;
    rig.fake.hold_captures();
    let pause = tokio::spawn({
        let pool = Arc::clone(&rig.pool);
        async move { pool.pause(&id("a"), Epoch(2), SnapshotScope::Full).await }
    });
    rig.fake.captures_begun(captures + 1).await;
    rig.fake.crash_all();
    assert!(matches!(
        pause.await.unwrap(),
        Err(PauseError::Failed { .. })
    ));
    wait_for_event(&mut events, "a", Kind::Paused(PauseCause::MachineLost)).await;
    rig.fake.release_captures();
    assert_eq!(rig.say("a", "read 7").await, "kept");
}

#[tokio::test]
async fn failed_resume_falls_back_to_new_snapshot() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "disk-write 7 kept").await;
    rig.fake.fail_next(Fault::Advance);
    rig.pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap();
    let mut info = rig.pool.get(&id("a")).unwrap().info.clone();
    info.wait_for(|info| info.state == SandboxState::Paused)
        .await
        .unwrap();
    assert_eq!(rig.say("a", "disk-read 7").await, "kept");
    assert_eq!(rig.fake.counts().live, 1);
}

#[tokio::test]
async fn kill_during_capture_is_a_conflict() {
    let rig = Rig::new().await;
    for fork in [true, false] {
        rig.create("a").await;
        rig.fake.hold_captures();
        let captures = rig.fake.counts().captures;
        let pool = Arc::clone(&rig.pool);
        let call = tokio::spawn(async move {
            if fork {
                let child = ForkSpec {
                    id: id("b"),
                    epoch: Epoch(1),
                    access_token: None,
                };
                let forked = pool.fork(&id("a"), vec![child]).await;
                let ended = ForkError::NotFound(id("a")).to_string();
                matches!(forked, Err(ForkError::Conflict { .. }))
                    || forked.is_err_and(|error| error.to_string() == ended)
            } else {
                let retained = pool.snapshot(&id("a"), SnapshotScope::Full).await;
                matches!(
                    retained,
                    Err(SnapshotError::Conflict { .. } | SnapshotError::NotFound(_))
                )
            }
        });
        rig.fake.captures_begun(captures + 1).await;
        let release = async { rig.fake.release_captures() };
        let origin = id("a");
        tokio::join!(rig.pool.kill(&origin), release).0.unwrap();
        assert!(call.await.unwrap(), "a kill is no failure of the call");
        assert_eq!(rig.count("staging"), 0);
    }
}

#[tokio::test]
async fn panic_during_capture_answers_every_queued_call() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.pause("a").await;
    rig.say("a", "hello").await;
    rig.fake.fail_next(Fault::CapturePanic);
    rig.fake.hold_captures();
    let before = rig.fake.counts().captures;
    let capture = tokio::spawn({
        let pool = Arc::clone(&rig.pool);
        async move { pool.snapshot(&id("a"), SnapshotScope::Full).await }
    });
    rig.fake.captures_begun(before + 1).await;
    let (name, pool) = (id("a"), Arc::clone(&rig.pool));
    let mut queued = std::pin::pin!(pool.pause(&name, Epoch(2), SnapshotScope::Full));
    assert!(futures::poll!(&mut queued).is_pending());
    rig.fake.release_captures();
    let captured = capture.await.unwrap();
    assert!(
        matches!(captured, Err(SnapshotError::Failed { .. })),
        "{captured:?}"
    );
    let paused = tokio::time::timeout(std::time::Duration::from_secs(10), queued).await;
    assert!(matches!(
        paused.unwrap(),
        Err(PauseError::AlreadyPaused { .. })
    ));
    assert_eq!(rig.state("a").await, SandboxState::Paused);
}

#[tokio::test]
async fn writes_after_an_unpause_stay_out_of_its_snapshot() {
    let rig = Rig::with_data("a").await;
    let captures = rig.fake.counts().captures;
    rig.fake.hold_captures();
    let pause = tokio::spawn({
        let pool = Arc::clone(&rig.pool);
        async move { pool.pause(&id("a"), Epoch(1), SnapshotScope::Full).await }
    });
    rig.fake.captures_begun(captures + 1).await;
    let mut enter = std::pin::pin!(rig.enter("a"));
    assert!(futures::poll!(&mut enter).is_pending());
    rig.fake.release_captures();
    let lease = enter.await;
    pause.await.unwrap().unwrap();
    assert_eq!(say(&*lease, "disk-write 7 later").await, "ok");
    assert_eq!(say(&*lease, "disk-write 8 later").await, "ok");
    assert_eq!(try_say(&*lease, "die").await, None);
    lease.revoked().await;
    drop(lease);
    let mut info = rig.pool.get(&id("a")).unwrap().info.clone();
    info.wait_for(|info| info.state == SandboxState::Paused)
        .await
        .unwrap();
    for (line, answer) in [("disk-read 7", "disk"), ("disk-read 8", "")] {
        assert_eq!(rig.say("a", line).await, answer);
    }
}
