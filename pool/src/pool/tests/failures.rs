use std::{fs, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use pool_api::{
    Epoch, ForkError, ForkSpec, IfPaused, Node, PauseCause, PauseError, SandboxState,
    SnapshotError, SnapshotScope, StopReason,
};
use vmm_api::fake::Fault;

use super::{Kind, Rig, failed, id, say, source_text, spec, try_say, wait_for_event};

#[tokio::test]
async fn a_failed_capture_lets_the_guest_go_on() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 7 kept").await;
    for (fault, text) in [
        (Fault::Capture, "told to fail"),
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
async fn a_failed_load_stays_paused_and_the_next_request_works() {
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
    }
    assert_eq!(rig.say("a", "read 7").await, "kept");
    assert_eq!(rig.pool.info(&id("a")).await.unwrap().last_error, None);
}

#[tokio::test]
async fn a_damaged_snapshot_is_named_and_stays() {
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
        // Others go on, and nothing that it needs is removed meanwhile.
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
async fn a_monitor_killed_under_a_request_is_converged_upon() {
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
async fn a_machine_that_ends_while_it_is_written_down_goes_back_to_what_there_is() {
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
async fn a_machine_that_cannot_go_on_is_restored_from_what_was_just_written() {
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
async fn a_kill_ends_whatever_is_under_way() {
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
async fn what_is_killed_while_it_is_captured_was_not_ours_to_fail() {
    let rig = Rig::new().await;
    for fork in [true, false] {
        rig.create("a").await;
        rig.fake.hold_captures();
        let captures = rig.fake.counts().captures;
        let pool = Arc::clone(&rig.pool);
        let asked = tokio::spawn(async move {
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
                let kept = pool.snapshot(&id("a"), SnapshotScope::Full).await;
                matches!(
                    kept,
                    Err(SnapshotError::Conflict { .. } | SnapshotError::NotFound(_))
                )
            }
        });
        rig.fake.captures_begun(captures + 1).await;
        let release = async { rig.fake.release_captures() };
        let origin = id("a");
        tokio::join!(rig.pool.kill(&origin), release).0.unwrap();
        assert!(asked.await.unwrap(), "it was killed, and nothing failed");
        assert_eq!(rig.count("staging"), 0);
    }
}

#[tokio::test]
async fn a_crash_of_the_pool_keeps_what_was_paused_and_removes_the_rest() {
    let rig = Rig::new().await;
    for name in ["paused", "woken", "running"] {
        rig.create(name).await;
        rig.say(name, "write 7 kept").await;
    }
    rig.pause("paused").await;
    rig.pause("woken").await;
    rig.say("woken", "write 7 lost").await;
    // As a kill in the middle of a capture leaves it.
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
    // A life after the crash is none that may have been lived before it.
    assert!(rig.enter("woken").await.epoch() > Epoch(2));
    assert_eq!(say(&*rig.enter("paused").await, "hello").await, "hello");
    rig.pool.create(spec("running")).await.unwrap();
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
