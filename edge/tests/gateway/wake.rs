//! SPECIFICATION.md, Requests: one wake for many requests, its timings, its timeout and clients that disconnect.

use std::time::Duration;

use futures::future::join_all;
use pool_api::{Node, SandboxState, SnapshotScope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    clients::{h2_connect, h2_get},
    rig::{Rig, TIMEOUT, public},
};

#[tokio::test]
async fn stream_reset_cancels_the_wait_for_a_wake() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.paused_sandbox("iabc", public()).await;
    rig.node.hold_wakes(true);
    let mut sender = h2_connect(&rig).await;
    let (response, mut request) = sender.send_request(h2_get(&id, "/"), false).unwrap();
    rig.wait_for_entering(1).await;
    request.send_reset(h2::Reason::CANCEL);
    drop(response);
    rig.wait_for_entering(0).await;
    rig.node.hold_wakes(false);
    let (reply, _) = sender.send_request(h2_get(&id, "/"), true).unwrap();
    assert_eq!(reply.await.unwrap().status(), 200);
    assert_eq!(rig.node.dials(), 1, "no connection for the reset stream");
}

#[tokio::test]
async fn two_hundred_requests_cause_one_wake() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", public()).await;
    rig.node.hold_wakes(true);
    let requests = join_all((0..200).map(|_| rig.get_port(80, &id, &[])));
    let release = async {
        rig.node.wait_for_wakes(1).await;
        rig.node.hold_wakes(false);
    };
    let (replies, ()) = tokio::join!(requests, release);
    assert!(replies.iter().all(|reply| reply.echo().epoch == 2));
    assert_eq!(rig.node.wakes(), 1);
    rig.wait_for_leases(0).await;
}

#[tokio::test]
async fn server_timing_reports_each_wake_stage() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", public()).await;
    let woken = rig.get_port(80, &id, &[]).await;
    let timing = woken.header("server-timing");
    let wake =
        "wake;dur=3.000;desc=\"restore\", wake-queue;dur=1.000, wake-load;dur=2.000, route;dur=";
    assert!(timing.starts_with(wake), "{timing}");
    let warm = rig.get_port(80, &id, &[]).await;
    let timing = warm.header("server-timing");
    assert!(
        timing.starts_with("route;dur=")
            && timing.contains("admit;dur=")
            && timing.contains("dial;dur=")
    );
}

#[tokio::test]
async fn wake_timeout_is_504() {
    let rig = Rig::with_config(|config| config.wake_timeout = Duration::from_millis(50)).await;
    let id = rig.paused_sandbox("iabc", public()).await;
    rig.node.hold_wakes(true);
    let reply = rig.get_port(80, &id, &[]).await;
    assert_eq!(reply.status, 504);
    assert!(reply.body.contains(r#""sandboxId":"iabc""#) && reply.body.contains(r#""code":504"#));
    rig.node.hold_wakes(false);
}

#[tokio::test]
async fn client_disconnect_cancels_the_wait_not_the_wake() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", public()).await;
    rig.node.hold_wakes(true);
    // Part of a body precedes the end of the connection.
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 10\r\n\r\nhalf");
    let socket = rig.send_raw(&head).await;
    rig.node.wait_for_wakes(1).await;
    rig.wait_for_entering(1).await;
    drop(socket);
    rig.wait_for_entering(0).await;
    rig.node.hold_wakes(false);
    assert_eq!(
        rig.get_port(80, &id, &[]).await.echo().epoch,
        2,
        "the wake continues"
    );
    rig.wait_for_leases(0).await;
    assert_eq!(
        rig.node.dials(),
        1,
        "no connection for the disconnected client"
    );
}

#[tokio::test]
async fn body_received_during_the_wake_is_forwarded() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", public()).await;
    rig.node.hold_wakes(true);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    );
    let mut socket = rig.send_raw(&head).await;
    rig.wait_for_entering(1).await;
    socket.write_all(b"body").await.unwrap();
    // A second request takes long enough for the edge to notice that the socket is readable.
    assert_eq!(
        rig.get_port(80, &"iother".parse().unwrap(), &[])
            .await
            .status,
        502
    );
    rig.node.hold_wakes(false);
    let mut response = String::new();
    let read = tokio::time::timeout(TIMEOUT, socket.read_to_string(&mut response)).await;
    read.unwrap().unwrap();
    assert!(
        response.starts_with("HTTP/1.1 200 ") && response.contains(r#""body":"body""#),
        "{response}"
    );
}

#[tokio::test]
async fn request_during_a_pause_waits_and_is_served() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    rig.node.hold_pauses(true);
    let pause = async {
        let epoch = rig.node.info(&id).await.unwrap().epoch;
        drop(rig.node.pause(&id, epoch, SnapshotScope::Full).await);
    };
    let request = async {
        rig.node
            .wait_for(&id, |state| state == SandboxState::Pausing)
            .await;
        rig.get_port(80, &id, &[]).await
    };
    let release = async {
        rig.wait_for_entering(1).await;
        rig.node.hold_pauses(false);
    };
    let (reply, (), ()) = tokio::join!(request, pause, release);
    assert_eq!(reply.status, 200);
    assert!(reply.header("server-timing").starts_with("wake;dur="));
}
