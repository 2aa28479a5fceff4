//! Clients that send oversized, endless or aborted requests.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::{Rig, events, text};

#[tokio::test]
async fn oversized_messages_are_resource_exhausted() {
    Rig::run(async |rig| {
        let kind = "application/connect+json";
        let response = rig
            .post("/process.Process/Start", kind, &[], b"\0\xff\xff\xff\xff{}")
            .await;
        let (_, end) = events(&response.body);
        assert_eq!(end["error"]["code"], "resource_exhausted", "{end}");
        let truncated = rig
            .post("/process.Process/Start", kind, &[], b"\0\0\0\0\x09{}")
            .await;
        assert_eq!(
            events(&truncated.body).1["error"]["code"],
            "invalid_argument"
        );
        let oversized = vec![b' '; 5 << 20];
        let response = rig
            .post("/process.Process/List", "application/json", &[], oversized)
            .await;
        assert_eq!(
            (response.status, response.json()["code"].as_str()),
            (429, Some("resource_exhausted"))
        );
    })
    .await;
}

/// Writes `bytes` repeatedly, up to `max`, while the agent accepts them. Returns the number of bytes and the response.
async fn flood(mut stream: TcpStream, head: &str, bytes: &[u8], max: usize) -> (usize, String) {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    while sent < max {
        match stream.write(bytes).await {
            Ok(len) => sent += len,
            Err(_) => break,
        }
    }
    let mut response = Vec::new();
    let _closed = stream.read_to_end(&mut response).await;
    (sent, text(&response))
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    Rig::run(async |rig| {
        let max = 64 << 20;
        let (sent, _) = flood(
            rig.tcp().await,
            "GET /health HTTP/1.1\r\n",
            b"a: b\r\n",
            max,
        )
        .await;
        assert!(sent < max, "{sent}");
        let (sent, _) = flood(
            rig.tcp().await,
            "GET /health HTTP/1.1\r\na: ",
            &[b'x'; 4096],
            max,
        )
        .await;
        assert!(sent < max, "{sent}");
        assert_eq!(rig.get("/health").await.status, 204);
    })
    .await;
}

#[tokio::test]
async fn form_without_files_is_400_beyond_its_limit() {
    Rig::run(async |rig| {
        let (sending, response) = rig.start(
            "/files",
            &[("content-type", "multipart/form-data; boundary=B")],
        );
        sending
            .unbounded_send("--B\r\nContent-Disposition: form-data; name=\"file\"; x=\"".into())
            .unwrap();
        for _ in 0..200 {
            sending
                .unbounded_send(vec![b'x'; 64 * 1024].into())
                .unwrap();
        }
        // The agent responds before the request has ended.
        let response = response.await;
        assert_eq!(response.status, 400);
        assert!(
            text(&response.body).contains("beside its files"),
            "{}",
            text(&response.body)
        );
    })
    .await;
}

#[tokio::test]
async fn thousand_idle_and_slow_clients_block_no_request() {
    Rig::run(async |rig| {
        let mut open = Vec::new();
        for index in 0..1000 {
            let mut stream = rig.tcp().await;
            if index % 2 == 0 {
                let head =
                    "POST /files?path=slow HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1";
                stream.write_all(head.as_bytes()).await.unwrap();
            }
            open.push(stream);
        }
        assert_eq!(rig.get("/health").await.status, 204);
        let body = r#"{"process":{"cmd":"true"},"stdin":false}"#;
        let (events, _) = events(&rig.stream("Start", &[], body).await.body);
        assert_eq!(
            events.last().unwrap()["event"]["end"]["status"],
            "exit status 0"
        );
        drop(open);
    })
    .await;
}

#[tokio::test]
async fn agent_survives_aborted_requests() {
    Rig::run(async |rig| {
        for head in [
            "POST /process.Process/Start HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+json\r\ncontent-length: 99\r\n\r\n\0\0",
            "POST /files?path=gone HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: 99\r\n\r\nabc",
            "POST /process.Process/StreamInput HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n\0\0",
            "GET /files?path=/proc/kallsyms HTTP/1.1\r\nhost: x\r\n\r\n",
        ] {
            let mut stream = rig.tcp().await;
            stream.write_all(head.as_bytes()).await.unwrap();
            drop(stream);
        }
        assert_eq!(rig.get("/health").await.status, 204);
    })
    .await;
}
