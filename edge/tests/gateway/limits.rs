//! SPECIFICATION.md, Requests: limits of connections, heads, concurrency and idle time.

use std::{process::Stdio, time::Duration};

use futures::{SinkExt, StreamExt};
use http::Request;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

use crate::{
    clients::{h2_connect, h2_get},
    rig::{DOMAIN, Rig, TIMEOUT, get_on, public, request},
};

/// Reads until the connection ends or is reset.
async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut received = Vec::new();
    // Either end is fine.
    drop(
        tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut received))
            .await
            .unwrap(),
    );
    String::from_utf8_lossy(&received).into_owned()
}

#[tokio::test]
async fn ten_thousand_stalled_connections_do_not_block_requests() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .unwrap();
    let rig =
        Rig::with_config(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap())).await;
    let id = rig.sandbox("iabc", public()).await;
    // A second process has file descriptors of its own. Each connection sends half a head.
    let script = r#"for ((i = 0; i < 10000; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$0" || exit 1
        printf 'GET / HTTP/1.1\r\nHost: x' >&$fd
    done
    echo open
    read"#;
    let mut clients = Command::new("bash")
        .args(["-c", script, &rig.port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(clients.stdout.take().unwrap());
    tokio::time::timeout(4 * TIMEOUT, output.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(line, "open\n");
    for _ in 0..20 {
        let reply = tokio::time::timeout(TIMEOUT, rig.get_port(80, &id, &[]))
            .await
            .unwrap();
        assert_eq!(reply.status, 200);
    }
    let text = rig.scrape().await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("catnap_connections{transport=\"plain\"} "));
    let open: u32 = line.unwrap().parse().unwrap();
    assert!(open >= 10_000, "{open}");
    clients.kill().await.unwrap();
    assert_eq!(rig.get_port(80, &id, &[]).await.status, 200);
}

#[tokio::test]
async fn connection_beyond_limit_is_closed_until_another_ends() {
    let rig = Rig::with_config(|config| config.limits.connections = 2).await;
    let id = rig.sandbox("iabc", public()).await;
    let host = format!("80-{id}.x");
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    for sender in [&mut first, &mut second] {
        assert_eq!(get_on(sender, "/", &[("host", &host)]).await.status, 200);
    }
    let mut third = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    assert_eq!(read_to_end(&mut third).await, "");
    drop(first);
    // The edge accepts another connection once it notices the end of the first.
    let reply = tokio::time::timeout(TIMEOUT, async {
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
async fn slow_head_times_out_but_slow_body_passes() {
    let rig =
        Rig::with_config(|config| config.limits.head_timeout = Duration::from_millis(300)).await;
    let id = rig.sandbox("iabc", public()).await;
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 4\r\n\r\n");
    let mut slow_body = rig.send_raw(&format!("{head}ha")).await;
    rig.wait_for_leases(1).await;
    // Single bytes, so that no single read waits for long.
    let mut slow_head = rig.send_raw("GET / HTTP/1.1\r\nX: ").await;
    let (mut reader, mut writer) = slow_head.split();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if writer.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let mut received = Vec::new();
    let end = async { drop(reader.read_to_end(&mut received).await) };
    tokio::time::timeout(TIMEOUT, async {
        tokio::select! { () = drip => {} () = end => {} }
    })
    .await
    .unwrap();
    // More time than that of a head has passed.
    slow_body.write_all(b"lf").await.unwrap();
    let mut reply = [0; 12];
    tokio::time::timeout(TIMEOUT, slow_body.read_exact(&mut reply))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200");
}

#[tokio::test]
async fn each_request_head_has_its_own_timeout() {
    let rig =
        Rig::with_config(|config| config.limits.head_timeout = Duration::from_millis(200)).await;
    let id = rig.sandbox("iabc", public()).await;
    let host = format!("80-{id}.x");
    let mut idle = rig.connect().await;
    assert_eq!(get_on(&mut idle, "/", &[("host", &host)]).await.status, 200);
    let mut stalled = rig.send_raw("GET").await;
    assert_eq!(read_to_end(&mut stalled).await, "", "closed at the timeout");
    idle.ready().await.unwrap();
    assert_eq!(get_on(&mut idle, "/", &[("host", &host)]).await.status, 200);
    let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut reused = rig.send_raw(&text).await;
    let mut reply = [0; 12];
    reused.read_exact(&mut reply).await.unwrap();
    reused.write_all(b"GET / HT").await.unwrap();
    assert!(
        !read_to_end(&mut reused).await.contains("HTTP/1.1 "),
        "no second response"
    );
}

#[tokio::test]
async fn oversized_head_is_431_and_unterminated_head_is_closed() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let head = format!("GET / HTTP/1.1\r\nHost: 80-{id}.x\r\nX: ");
    let mut oversized = rig
        .send_raw(&format!(
            "{head}{}\r\nConnection: close\r\n\r\n",
            "x".repeat(65 << 10)
        ))
        .await;
    let text = read_to_end(&mut oversized).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let accepted = rig.get_port(80, &id, &[("x", &"x".repeat(60 << 10))]).await;
    assert_eq!(accepted.status, 200);

    let mut unterminated = rig.send_raw(&head).await;
    let (mut reader, mut writer) = unterminated.split();
    let chunk = vec![b'x'; 16 << 10];
    let mut sent = 0;
    let flood = async {
        while writer.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
    };
    let mut received = Vec::new();
    let end = async { drop(reader.read_to_end(&mut received).await) };
    tokio::time::timeout(TIMEOUT, async { tokio::join!(flood, end) })
        .await
        .unwrap();
    // The bound leaves room for the buffers of the kernel.
    assert!(sent < 32 << 20, "{sent}");

    let mut sender = h2_connect(&rig).await;
    let mut get = h2_get(&id, "/");
    get.headers_mut()
        .insert("x", "x".repeat(70 << 10).parse().unwrap());
    let (response, _) = sender.send_request(get, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 431);
    assert_eq!(rig.node.dials(), 1);
}

#[tokio::test]
async fn body_in_head_read_is_not_limited() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let body = "b".repeat(300 << 10);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut socket = rig.send_raw(&format!("{head}{body}")).await;
    assert!(read_to_end(&mut socket).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn request_beyond_sandbox_limit_is_429() {
    let rig = Rig::with_config(|config| config.limits.connections_per_sandbox = 2).await;
    let (id, other) = (
        rig.sandbox("iabc", public()).await,
        rig.sandbox("ixyz", public()).await,
    );
    let hang = format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n");
    let (first, _second) = (rig.send_raw(&hang).await, rig.send_raw(&hang).await);
    rig.wait_for_leases(2).await;
    let reply = rig.get_port(80, &id, &[]).await;
    let body = r#"{"sandboxId":"iabc","message":"The sandbox has too many concurrent incoming connections (limit: 2)","code":429,"connectionLimit":2}"#;
    assert_eq!((reply.status, reply.body.as_str()), (429, body));
    let page = rig.get_port(80, &id, &[("user-agent", "Firefox")]).await;
    assert!(page.body.contains("<title>Too Many Connections</title>"));
    assert_eq!(
        rig.get_port(80, &other, &[]).await.status,
        200,
        "another sandbox has its own limit"
    );
    drop(first);
    rig.wait_for_leases(1).await;
    assert_eq!(rig.get_port(80, &id, &[]).await.status, 200);
}

#[tokio::test]
async fn idle_connections_and_streams_time_out() {
    let rig = Rig::with_tls(|config| config.limits.idle_stream = Duration::from_millis(300)).await;
    let id = rig.sandbox("iabc", public()).await;
    let head = format!("POST / HTTP/1.1\r\nHost: 80-{id}.x\r\nContent-Length: 9\r\n\r\nhalf");
    let mut half_body = rig.send_raw(&head).await;
    let mut hanging = rig
        .send_raw(&format!("GET /hang HTTP/1.1\r\nHost: 80-{id}.x\r\n\r\n"))
        .await;
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut ws, _) = tokio_tungstenite::client_async(format!("ws://80-{id}.x/ws"), socket)
        .await
        .unwrap();
    let mut sender = h2_connect(&rig).await;
    let (response, _body) = sender.send_request(h2_get(&id, "/hang"), false).unwrap();
    ws.send("x".into()).await.unwrap();
    rig.serve_api(axum::Router::new().fallback(async |body: axum::body::Bytes| body));
    let mut api = Request::post(format!("https://api.{DOMAIN}/x"))
        .body(())
        .unwrap();
    *api.version_mut() = http::Version::HTTP_2;
    let (stalled, _open) = sender.send_request(api, false).unwrap();
    drop(read_to_end(&mut half_body).await);
    read_to_end(&mut hanging).await;
    tokio::time::timeout(TIMEOUT, async {
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await
    .unwrap();
    let mut body = response.await.unwrap().into_body();
    let ended = async { while let Some(Ok(_)) = body.data().await {} };
    tokio::time::timeout(TIMEOUT, ended).await.unwrap();
    rig.wait_for_leases(0).await;
    let stalled = tokio::time::timeout(TIMEOUT, stalled).await.unwrap();
    assert!(stalled.is_err(), "requests to the API time out too");
    // No lease prevents a pause.
    rig.pause(&id).await;
}
