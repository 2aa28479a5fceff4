//! Callers that mean harm.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::{Rig, events, text};

#[tokio::test]
async fn a_huge_envelope_is_refused_by_its_head() {
    Rig::run(async |rig| {
        let kind = "application/connect+json";
        let answer = rig
            .post("/process.Process/Start", kind, &[], b"\0\xff\xff\xff\xff{}")
            .await;
        let (_, end) = events(&answer.body);
        assert_eq!(end["error"]["code"], "resource_exhausted", "{end}");
        let cut = rig
            .post("/process.Process/Start", kind, &[], b"\0\0\0\0\x09{}")
            .await;
        assert_eq!(events(&cut.body).1["error"]["code"], "invalid_argument");
        let long = vec![b' '; 5 << 20];
        let answer = rig
            .post("/process.Process/List", "application/json", &[], long)
            .await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (429, Some("resource_exhausted"))
        );
    })
    .await;
}

/// Writes `bytes` for as long as they are taken, and returns what came back.
async fn poured(mut stream: TcpStream, head: &str, bytes: &[u8], most: usize) -> (usize, String) {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    while sent < most {
        match stream.write(bytes).await {
            Ok(len) => sent += len,
            Err(_) => break,
        }
    }
    let mut answer = Vec::new();
    let _ended = stream.read_to_end(&mut answer).await;
    (sent, text(&answer))
}

#[tokio::test]
async fn headers_without_an_end_are_not_read_for_ever() {
    Rig::run(async |rig| {
        let most = 64 << 20;
        let (sent, _) = poured(
            rig.tcp().await,
            "GET /health HTTP/1.1\r\n",
            b"a: b\r\n",
            most,
        )
        .await;
        assert!(sent < most, "{sent}");
        let (sent, _) = poured(
            rig.tcp().await,
            "GET /health HTTP/1.1\r\na: ",
            &[b'x'; 4096],
            most,
        )
        .await;
        assert!(sent < most, "{sent}");
        assert_eq!(rig.get("/health").await.status, 204);
    })
    .await;
}

#[tokio::test]
async fn a_form_that_never_comes_to_its_files_is_not_kept() {
    Rig::run(async |rig| {
        let (sending, answer) = rig.start(
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
        // The answer comes without the end of the request.
        let answer = answer.await;
        assert_eq!(answer.status, 400);
        assert!(
            text(&answer.body).contains("beside its files"),
            "{}",
            text(&answer.body)
        );
    })
    .await;
}

#[tokio::test]
async fn a_thousand_silent_and_a_thousand_slow_callers_stop_nobody() {
    Rig::run(async |rig| {
        let mut open = Vec::new();
        for at in 0..1000 {
            let mut stream = rig.tcp().await;
            if at % 2 == 0 {
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
async fn a_caller_that_goes_away_in_the_middle_leaves_the_agent_well() {
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
