//! Requests that wait for a sandbox to wake.

use std::time::Duration;

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::{PATIENCE, Rig, open};

#[tokio::test]
async fn two_hundred_requests_cause_one_wake() {
    let rig = Rig::new().await;
    let id = rig.sleeping("iabc", open()).await;
    rig.fake.hold_wakes(true);
    let requests = join_all((0..200).map(|_| rig.visit(80, &id, &[])));
    let release = async {
        rig.fake.wait_for_wakes(1).await;
        rig.fake.hold_wakes(false);
    };
    let (replies, ()) = tokio::join!(requests, release);
    assert!(replies.iter().all(|reply| reply.echo().epoch == 2));
    assert_eq!(rig.fake.wakes(), 1);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_wake_is_timed_stage_by_stage() {
    let rig = Rig::new().await;
    let id = rig.sleeping("iabc", open()).await;
    let woken = rig.visit(80, &id, &[]).await;
    let timing = woken.header("server-timing");
    let wake =
        "wake;dur=3.000;desc=\"restore\", wake-queue;dur=1.000, wake-load;dur=2.000, route;dur=";
    assert!(timing.starts_with(wake), "{timing}");
    let warm = rig.visit(80, &id, &[]).await;
    let timing = warm.header("server-timing");
    assert!(
        timing.starts_with("route;dur=")
            && timing.contains("admit;dur=")
            && timing.contains("dial;dur=")
    );
}

#[tokio::test]
async fn a_wake_that_takes_too_long_is_504() {
    let rig = Rig::with(|config| config.wake_timeout = Duration::from_millis(50)).await;
    let id = rig.sleeping("iabc", open()).await;
    rig.fake.hold_wakes(true);
    let reply = rig.visit(80, &id, &[]).await;
    assert_eq!(reply.status, 504);
    assert!(reply.body.contains(r#""sandboxId":"iabc""#) && reply.body.contains(r#""code":504"#));
    rig.fake.hold_wakes(false);
}

#[tokio::test]
async fn a_client_that_hangs_up_waits_no_longer() {
    let rig = Rig::new().await;
    let id = rig.sleeping("iabc", open()).await;
    rig.fake.hold_wakes(true);
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    // Part of a body is there, so that the end is not the first thing to be read.
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 10\r\n\r\nhalf");
    socket.write_all(head.as_bytes()).await.unwrap();
    rig.fake.wait_for_wakes(1).await;
    rig.fake.wait_for_entering(1).await;
    drop(socket);
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_entering(0))
        .await
        .unwrap();
    rig.fake.hold_wakes(false);
    assert_eq!(
        rig.visit(80, &id, &[]).await.echo().epoch,
        2,
        "the wake went on"
    );
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
    assert_eq!(
        rig.fake.dials(),
        1,
        "nothing was sent for the client that left"
    );
}

#[tokio::test]
async fn a_body_that_comes_during_the_wake_is_read_after_it() {
    let rig = Rig::new().await;
    let id = rig.sleeping("iabc", open()).await;
    rig.fake.hold_wakes(true);
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    rig.fake.wait_for_entering(1).await;
    socket.write_all(b"body").await.unwrap();
    // The edge has seen, beside its reader, that something came: another request needs more turns than that.
    assert_eq!(
        rig.visit(80, &"iother".parse().unwrap(), &[]).await.status,
        502
    );
    rig.fake.hold_wakes(false);
    let mut got = String::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_string(&mut got)).await;
    read.unwrap().unwrap();
    assert!(
        got.starts_with("HTTP/1.1 200 ") && got.contains(r#""body":"body""#),
        "{got}"
    );
}
