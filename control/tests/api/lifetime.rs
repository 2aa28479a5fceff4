//! Ends, wakes by traffic, crashes.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use control::{Config, Control};
use coordinator::Coordinator;
use pool_api::{Epoch, IfPaused, Node, Origin, SandboxSpec, SandboxState, Secret, SnapshotScope};
use serde_json::{Value, json};

use crate::rig::{KEY, PATIENCE, Rig, sandbox};

fn seconds(seen: &Value) -> f64 {
    let time = |name: &str| {
        seen[name]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    (time("endAt") - time("startedAt"))
        .total(jiff::Unit::Second)
        .unwrap()
}

#[tokio::test]
async fn a_sandbox_is_killed_at_its_end() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1 }))
        .await;
    let name = sandbox(&id);
    let gone = rig
        .fake
        .wait_for(&name, |state| matches!(state, SandboxState::Stopped(_)));
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    rig.until(&id, |reply| reply.status == 404).await;
    assert_eq!(rig.placement(&id).await, None);
}

#[tokio::test]
async fn a_timeout_of_zero_ends_it_at_once() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1000, "autoPause": true }))
        .await;
    rig.call(
        "POST",
        &format!("/sandboxes/{id}/timeout"),
        json!({ "timeout": 0 }),
    )
    .await
    .expect(204);
    let paused = rig
        .until(&id, |reply| reply.expect(200)["state"] == "paused")
        .await
        .expect(200);
    assert_eq!(paused["lifecycle"]["onTimeout"], "pause");
    assert!(
        rig.placement(&id).await.is_some(),
        "a sleeping sandbox has a place"
    );
}

#[tokio::test]
async fn a_sandbox_that_sleeps_has_no_end() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1, "idleTimeout": 1000 }))
        .await;
    let other = rig
        .create(json!({ "templateID": "base", "timeout": 1 }))
        .await;
    // As if nobody had used it for a while.
    rig.fake
        .pause(&sandbox(&id), Epoch(1), SnapshotScope::Full)
        .await
        .unwrap();
    rig.until(&other, |reply| reply.status == 404).await;
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.expect(200)["state"],
        "paused"
    );
}

#[tokio::test]
async fn a_wake_by_traffic_grants_a_window() {
    let rig = Rig::new().await;
    for (timeout, granted) in [(420, 420.0), (20, 300.0)] {
        let body =
            json!({ "templateID": "base", "timeout": timeout, "autoResume": { "enabled": true } });
        let id = rig.create(body).await;
        // What was set later does not count.
        rig.call(
            "POST",
            &format!("/sandboxes/{id}/timeout"),
            json!({ "timeout": 600 }),
        )
        .await
        .expect(204);
        rig.call("POST", &format!("/sandboxes/{id}/pause"), Value::Null)
            .await
            .expect(204);
        drop(rig.fake.enter(&sandbox(&id), IfPaused::Wake).await.unwrap());
        let woken = rig
            .until(&id, |reply| {
                (seconds(&reply.expect(200)) - granted).abs() < 1e-9
            })
            .await
            .expect(200);
        assert_eq!(woken["state"], "running");
        assert_eq!(rig.placement(&id).await.unwrap().epoch, Epoch(2));
    }
}

#[tokio::test]
async fn a_crashed_sandbox_is_forgotten() {
    let rig = Rig::new().await;
    let id = rig.create(json!({ "templateID": "base" })).await;
    rig.fake.crash(&sandbox(&id));
    assert_eq!(
        rig.get(&format!("/sandboxes/{id}")).await.status,
        404,
        "at once"
    );
    let gone = async {
        while rig.placement(&id).await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn after_a_crash_the_ledger_and_the_host_agree() {
    let rig = Rig::new().await;
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(rig.create(json!({ "templateID": "base", "metadata": { "k": "v" }, "autoResume": { "enabled": true } })).await);
    }
    let [stays, sleeps, wakes, ends] = [0, 1, 2, 3].map(|n: usize| made[n].clone());
    rig.call("POST", &format!("/sandboxes/{wakes}/pause"), Value::Null)
        .await
        .expect(204);
    let before = rig.get(&format!("/sandboxes/{stays}")).await.expect(200);
    let (fake, dir) = rig.crash().await;

    // While control is down: one falls asleep, one is woken, one ends, and one is made that nobody was told of.
    fake.pause(&sandbox(&sleeps), Epoch(1), SnapshotScope::Full)
        .await
        .unwrap();
    drop(fake.enter(&sandbox(&wakes), IfPaused::Wake).await.unwrap());
    fake.crash(&sandbox(&ends));
    let orphan = SandboxSpec {
        id: sandbox("iorphan"),
        epoch: Epoch(1),
        origin: Origin::Template("base".parse().unwrap()),
        template: "base".parse().unwrap(),
        idle: None,
        env: std::collections::BTreeMap::new(),
        access_token: None,
    };
    fake.create(orphan).await.unwrap();

    let rig = Rig::over(fake, dir).await;
    assert_eq!(
        rig.get(&format!("/sandboxes/{stays}")).await.expect(200),
        before,
        "to the microsecond, tokens too"
    );
    assert_eq!(
        rig.get(&format!("/sandboxes/{sleeps}")).await.expect(200)["state"],
        "paused"
    );
    let woken = rig.get(&format!("/sandboxes/{wakes}")).await.expect(200);
    assert_eq!(
        (&woken["state"], woken["metadata"]["k"].as_str()),
        (&json!("running"), Some("v"))
    );
    assert!((seconds(&woken) - 300.0).abs() < 1e-9, "{woken}");
    rig.get(&format!("/sandboxes/{ends}")).await.error(404);
    assert!(rig.fake.info(&sandbox("iorphan")).await.is_none());
    for (id, known) in [
        (&stays, true),
        (&sleeps, true),
        (&wakes, true),
        (&ends, false),
    ] {
        assert_eq!(rig.placement(id).await.is_some(), known);
    }
    assert!(rig.placement(&stays).await.unwrap().access.auto_resume);
}

#[tokio::test]
async fn ends_are_kept_over_a_crash() {
    let rig = Rig::new().await;
    let id = rig
        .create(json!({ "templateID": "base", "timeout": 1 }))
        .await;
    let (fake, dir) = rig.crash().await;
    let rig = Rig::over(fake, dir).await;
    rig.until(&id, |reply| reply.status == 404).await;
    assert!(rig.fake.info(&sandbox(&id)).await.is_none());
}

#[tokio::test]
async fn what_the_host_put_to_sleep_ends_when_it_was_to_end() {
    let rig = Rig::new().await;
    let make = async |body: Value| rig.create(body).await;
    let kill = make(json!({ "templateID": "base", "timeout": 3 })).await;
    let pause = make(json!({ "templateID": "base", "timeout": 3, "autoPause": true })).await;
    let asked = make(json!({ "templateID": "base", "timeout": 3 })).await;
    let before = rig.get(&format!("/sandboxes/{kill}")).await.expect(200);
    let (fake, dir) = rig.crash().await;
    // As a host does that shuts down.
    for id in [&kill, &pause, &asked] {
        fake.pause(&sandbox(id), Epoch(1), SnapshotScope::Full)
            .await
            .unwrap();
    }
    let rig = Rig::over(fake, dir).await;
    let seen = rig.get(&format!("/sandboxes/{kill}")).await.expect(200);
    assert_eq!(
        (&seen["state"], &seen["endAt"]),
        (&json!("paused"), &before["endAt"]),
        "its window survives"
    );
    // Whoever wants it asleep has it asleep, although it is already.
    rig.call("POST", &format!("/sandboxes/{asked}/pause"), Value::Null)
        .await
        .error(409);
    rig.until(&kill, |reply| reply.status == 404).await;
    for id in [pause, asked] {
        let seen = rig.get(&format!("/sandboxes/{id}")).await.expect(200);
        assert_eq!(seen["state"], "paused");
        let moment = seen["endAt"].as_str();
        assert!(moment < before["endAt"].as_str(), "the time of the pause");
    }
}

#[tokio::test]
async fn a_ledger_that_is_none_is_said_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.db");
    std::fs::write(
        &path,
        "this is not a database, it only looks long enough to be one".repeat(100),
    )
    .unwrap();
    let config = Config::new(path.clone(), Secret::new(KEY), "n1".parse().unwrap());
    let fake = pool_api::fake::FakeNode::default();
    let error = Control::start(config, Arc::new(fake), Arc::new(Coordinator::default()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

#[tokio::test]
async fn control_serves_on_a_unix_socket_and_replaces_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let config = Config::new(
        dir.path().join("control.db"),
        Secret::new(KEY),
        "n1".parse().unwrap(),
    );
    let fake = Arc::new(pool_api::fake::FakeNode::default());
    let control = Control::start(config, fake, Arc::new(Coordinator::default()))
        .await
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (socket, until) = (path.clone(), async move { drop(stopped.await) });
    let served = tokio::spawn(control.serve_unix(&socket, until).unwrap());
    let answer = async {
        loop {
            // The stale socket refuses until the new one is there.
            if let Ok(stream) = tokio::net::UnixStream::connect(&path).await {
                break stream;
            }
            tokio::task::yield_now().await;
        }
    };
    let stream = tokio::time::timeout(PATIENCE, answer).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/health")
        .header("host", "x")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    for file in ["control.sock", "control.db", "control.db-wal"] {
        let mode = std::fs::metadata(dir.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop((sender, stop));
    tokio::time::timeout(PATIENCE, served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
