//! Clients that mean harm.

use std::{process::Stdio, time::Duration};

use futures::{SinkExt, StreamExt};
use http::Request;
use pool_api::Node;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

use crate::{
    resets,
    rig::{DOMAIN, PATIENCE, Rig, get_on, open, request},
};

/// Reads to the end or the reset of a connection.
async fn drained(socket: &mut TcpStream) -> String {
    let mut got = Vec::new();
    // How it ends does not matter here.
    drop(
        tokio::time::timeout(PATIENCE, socket.read_to_end(&mut got))
            .await
            .unwrap(),
    );
    String::from_utf8_lossy(&got).into_owned()
}

async fn dial(rig: &Rig, text: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn ten_thousand_connections_do_not_keep_anybody_out() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .unwrap();
    let rig = Rig::with(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap())).await;
    let id = rig.sandbox("iabc", open()).await;
    // In a process of its own, so that each side has descriptors enough. Half a head each.
    let script = r#"for ((i = 0; i < 10000; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$0" || exit 1
        printf 'GET / HTTP/1.1\r\nHost: x' >&$fd
    done
    echo held
    read"#;
    let mut crowd = Command::new("bash")
        .args(["-c", script, &rig.port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut output = BufReader::new(crowd.stdout.take().unwrap());
    tokio::time::timeout(4 * PATIENCE, output.read_line(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said, "held\n");
    for _ in 0..20 {
        let reply = tokio::time::timeout(PATIENCE, rig.visit(80, &id, &[]))
            .await
            .unwrap();
        assert_eq!(reply.status, 200);
    }
    let text = rig.scrape().await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("catnap_connections{transport=\"plain\"} "));
    let held: u32 = line.unwrap().parse().unwrap();
    assert!(held >= 10_000, "{held}");
    crowd.kill().await.unwrap();
    assert_eq!(rig.visit(80, &id, &[]).await.status, 200);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_its_place_given_to_another() {
    let rig = Rig::with(|config| config.limits.connections = 2).await;
    let id = rig.sandbox("iabc", open()).await;
    let host = format!("80-{id}.x");
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    for sender in [&mut first, &mut second] {
        assert_eq!(get_on(sender, "/", &[("host", &host)]).await.status, 200);
    }
    let mut third = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    assert_eq!(drained(&mut third).await, "");
    drop(first);
    // The place is free once the edge has seen the end.
    let reply = tokio::time::timeout(PATIENCE, async {
        loop {
            let mut sender = rig.connect().await;
            if let Ok(response) = sender.send_request(request("/", &[("host", &host)])).await {
                return response.status();
            }
        }
    });
    assert_eq!(reply.await.unwrap(), 200);
}

#[tokio::test]
async fn a_slow_head_is_not_waited_for_but_a_slow_body_is() {
    let rig = Rig::with(|config| config.limits.head_timeout = Duration::from_millis(300)).await;
    let id = rig.sandbox("iabc", open()).await;
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 4\r\n\r\n");
    let mut patient = dial(&rig, &format!("{head}ha")).await;
    rig.fake.wait_for_leases(1).await;
    // Byte by byte, so that no single wait is long.
    let mut slow = dial(&rig, "GET / HTTP/1.1\r\nX: ").await;
    let (mut reader, mut writer) = slow.split();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if writer.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let mut got = Vec::new();
    let end = async { drop(reader.read_to_end(&mut got).await) };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! { () = drip => {} () = end => {} }
    })
    .await
    .unwrap();
    // More than the time of a head is over now.
    patient.write_all(b"lf").await.unwrap();
    let mut reply = [0; 12];
    tokio::time::timeout(PATIENCE, patient.read_exact(&mut reply))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_second_head_on_a_connection_has_its_own_time() {
    let rig = Rig::with(|config| config.limits.head_timeout = Duration::from_millis(200)).await;
    let id = rig.sandbox("iabc", open()).await;
    let host = format!("80-{id}.x");
    let mut kept = rig.connect().await;
    assert_eq!(get_on(&mut kept, "/", &[("host", &host)]).await.status, 200);
    let mut silent = dial(&rig, "GET").await;
    assert_eq!(drained(&mut silent).await, "", "after the time of a head");
    kept.ready().await.unwrap();
    assert_eq!(get_on(&mut kept, "/", &[("host", &host)]).await.status, 200);
    let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut again = dial(&rig, &text).await;
    let mut reply = [0; 12];
    again.read_exact(&mut reply).await.unwrap();
    again.write_all(b"GET / HT").await.unwrap();
    assert!(
        !drained(&mut again).await.contains("HTTP/1.1 "),
        "no second answer"
    );
}

#[tokio::test]
async fn a_head_too_long_is_431_and_an_endless_one_is_cut() {
    let rig = Rig::secured(|_| {}).await;
    let id = rig.sandbox("iabc", open()).await;
    let head = format!("GET / HTTP/1.1\r\nHost: 80-{id}.x\r\nX: ");
    let mut long = dial(
        &rig,
        &format!(
            "{head}{}\r\nConnection: close\r\n\r\n",
            "x".repeat(65 << 10)
        ),
    )
    .await;
    let text = drained(&mut long).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let fits = rig.visit(80, &id, &[("x", &"x".repeat(60 << 10))]).await;
    assert_eq!(fits.status, 200);

    let mut endless = dial(&rig, &head).await;
    let (mut reader, mut writer) = endless.split();
    let piece = vec![b'x'; 16 << 10];
    let mut sent = 0;
    let flood = async {
        while writer.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
    };
    let mut got = Vec::new();
    let end = async { drop(reader.read_to_end(&mut got).await) };
    tokio::time::timeout(PATIENCE, async { tokio::join!(flood, end) })
        .await
        .unwrap();
    // What the kernel's buffers took on the way is not the edge's.
    assert!(sent < 32 << 20, "{sent}");

    let mut sender = resets::connect(&rig).await;
    let mut ask = resets::ask(&id, "/");
    ask.headers_mut()
        .insert("x", "x".repeat(70 << 10).parse().unwrap());
    let (response, _) = sender.send_request(ask, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 431);
    assert_eq!(rig.fake.dials(), 1);
}

#[tokio::test]
async fn a_body_with_its_head_does_not_count_as_head() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", open()).await;
    let body = "b".repeat(300 << 10);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut socket = dial(&rig, &format!("{head}{body}")).await;
    assert!(drained(&mut socket).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_sandbox_takes_so_many_requests_and_no_more() {
    let rig = Rig::with(|config| config.limits.connections_per_sandbox = 2).await;
    let (id, other) = (
        rig.sandbox("iabc", open()).await,
        rig.sandbox("ixyz", open()).await,
    );
    let hang = format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
    let (first, _second) = (dial(&rig, &hang).await, dial(&rig, &hang).await);
    rig.fake.wait_for_leases(2).await;
    let reply = rig.visit(80, &id, &[]).await;
    let body = r#"{"sandboxId":"iabc","message":"The sandbox has too many concurrent incoming connections (limit: 2)","code":429,"connectionLimit":2}"#;
    assert_eq!((reply.status, reply.body.as_str()), (429, body));
    let page = rig.visit(80, &id, &[("user-agent", "Firefox")]).await;
    assert!(page.body.contains("<title>Too Many Connections</title>"));
    assert_eq!(
        rig.visit(80, &other, &[]).await.status,
        200,
        "another sandbox has its own"
    );
    drop(first);
    rig.fake.wait_for_leases(1).await;
    assert_eq!(rig.visit(80, &id, &[]).await.status, 200);
}

#[tokio::test]
async fn resetting_without_end_is_answered_with_a_goodbye() {
    let rig = Rig::secured(|config| config.limits.resets = 20).await;
    let id = rig.sleeping("iabc", open()).await;
    rig.fake.hold_wakes(true);
    let mut bystander = resets::connect(&rig).await;
    let stream = crate::secure::dial(&rig, b"h2").await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let storm = async {
        loop {
            if futures::future::poll_fn(|cx| sender.poll_ready(cx))
                .await
                .is_err()
            {
                return;
            }
            let Ok((response, mut request)) = sender.send_request(resets::ask(&id, "/"), false)
            else {
                return;
            };
            // Only once it is under way: the codec has a bound of its own for those that are not.
            rig.fake.wait_for_entering(1).await;
            request.send_reset(h2::Reason::CANCEL);
            drop(response);
            rig.fake.wait_for_entering(0).await;
        }
    };
    tokio::select! {
        () = storm => {}
        () = tokio::time::sleep(PATIENCE) => panic!("it goes on"),
        // The storm may wait for a stream that the edge never took.
        () = async { while !connection.is_finished() { tokio::task::yield_now().await } } => {}
    }
    let error = connection.await.unwrap().unwrap_err();
    assert_eq!(
        error.reason(),
        Some(h2::Reason::ENHANCE_YOUR_CALM),
        "{error}"
    );
    rig.fake.hold_wakes(false);
    let (reply, _) = bystander.send_request(resets::ask(&id, "/"), true).unwrap();
    assert_eq!(reply.await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_stands_still_for_long_is_let_go() {
    let rig = Rig::secured(|config| config.limits.idle_stream = Duration::from_millis(300)).await;
    let id = rig.sandbox("iabc", open()).await;
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 9\r\n\r\nhalf");
    let mut half = dial(&rig, &head).await;
    let mut hung = dial(
        &rig,
        &format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n"),
    )
    .await;
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut ws, _) = tokio_tungstenite::client_async(format!("ws://80-{id}.x/ws"), socket)
        .await
        .unwrap();
    let mut sender = resets::connect(&rig).await;
    let (response, _body) = sender
        .send_request(resets::ask(&id, "/hang"), false)
        .unwrap();
    ws.send("x".into()).await.unwrap();
    rig.serve_api(axum::Router::new().fallback(async |body: axum::body::Bytes| body));
    let mut api = Request::post(format!("https://api.{DOMAIN}/x"))
        .body(())
        .unwrap();
    *api.version_mut() = http::Version::HTTP_2;
    let (stalled, _open) = sender.send_request(api, false).unwrap();
    drop(drained(&mut half).await);
    drained(&mut hung).await;
    tokio::time::timeout(PATIENCE, async {
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await
    .unwrap();
    let mut body = response.await.unwrap().into_body();
    let ended = async { while let Some(Ok(_)) = body.data().await {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    tokio::time::timeout(PATIENCE, rig.fake.wait_for_leases(0))
        .await
        .unwrap();
    let stalled = tokio::time::timeout(PATIENCE, stalled).await.unwrap();
    assert!(stalled.is_err(), "the API has its bound as well");
    // Nothing holds it awake any more.
    let epoch = rig.fake.info(&id).await.unwrap().epoch;
    rig.fake
        .pause(&id, epoch, pool_api::SnapshotScope::Full)
        .await
        .unwrap();
}
