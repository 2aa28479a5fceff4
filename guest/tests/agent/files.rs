//! Uploads, downloads, composition and signed URLs.

use crate::rig::{Rig, text};

#[tokio::test]
async fn uploads_are_downloaded_unchanged() {
    Rig::run(async |rig| {
        let path = rig.path("home/sub/data.bin");
        let content = "0123456789abcdef".repeat(20_000);
        let query = format!("/files?path={path}");
        let written = rig.post(&query, "application/octet-stream", &[], &content).await;
        assert_eq!((written.status, written.json()[0]["path"].as_str()), (200, Some(path.as_str())));
        let read = rig.get(&query).await;
        assert_eq!(read.status, 200);
        assert!(read.body == content.as_bytes());
        assert_eq!(read.header("content-disposition"), "inline; filename=\"data.bin\"");

        let form = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"rel.txt\"\r\n\r\nhi\r\n--B--\r\n";
        assert_eq!(rig.post("/files", "multipart/form-data; boundary=B", &[], form).await.status, 200);
        assert_eq!(rig.get(&format!("/files?path={}", rig.path("home/rel.txt"))).await.body, b"hi");
        assert_eq!(rig.get("/files?path=rel.txt").await.body, b"hi");
    })
    .await;
}

#[tokio::test]
async fn unreadable_paths_are_json_errors() {
    Rig::run(async |rig| {
        let boot_id = rig.get("/files?path=/proc/sys/kernel/random/boot_id").await;
        assert_eq!(boot_id.body.len(), 37);
        let missing = rig.get("/files?path=/no/such").await;
        assert_eq!(
            (missing.status, missing.json()["message"].as_str()),
            (404, Some("path '/no/such' does not exist"))
        );
        let dir = rig.get("/files?path=/etc").await;
        assert_eq!(
            (dir.status, dir.json()["message"].as_str()),
            (400, Some("path '/etc' is a directory"))
        );
        assert_eq!(rig.get("/files?path=/dev/null").await.status, 400);
        assert_eq!(
            rig.get("/files?path=x&username=unknown-user").await.status,
            401
        );
    })
    .await;
}

#[tokio::test]
async fn gzip_uploads_and_downloads_round_trip() {
    Rig::run(async |rig| {
        for size in [10, 500_000] {
            let content = b"0123456789".repeat(size / 10);
            let compressed = gzip(&content);
            let headers = [("content-encoding", "gzip")];
            let kind = "application/octet-stream";
            let response = rig.post("/files?path=z", kind, &headers, &compressed).await;
            assert_eq!(response.status, 200, "{}", text(&response.body));
            assert!(std::fs::read(rig.path("home/z")).unwrap() == content);

            let accept = [("accept-encoding", "gzip, deflate")];
            let read = rig.get_with("/files?path=z", &accept).await;
            assert_eq!(read.header("content-encoding"), "gzip");
            assert_eq!(read.header("vary"), "Accept-Encoding");
            assert!(gunzip(&read.body) == content);
            if let Some(length) = read.headers.get("content-length") {
                assert_eq!(length.to_str().unwrap(), read.body.len().to_string());
            }
            let plain = rig.get("/files?path=z").await;
            assert_eq!(plain.header("content-length"), size.to_string());
            assert!(plain.headers.get("content-encoding").is_none());
        }
        let no_encoding = [("accept-encoding", "identity;q=0")];
        assert_eq!(
            rig.get_with("/files?path=z", &no_encoding).await.status,
            406
        );
        let unsupported = [("content-encoding", "br")];
        let response = rig
            .post(
                "/files?path=z",
                "application/octet-stream",
                &unsupported,
                "x",
            )
            .await;
        assert_eq!(response.status, 400);
        let gzip_header = [("content-encoding", "gzip")];
        let response = rig
            .post(
                "/files?path=z",
                "application/octet-stream",
                &gzip_header,
                "no gzip",
            )
            .await;
        assert_eq!(response.status, 400);
    })
    .await;
}

#[tokio::test]
async fn gzip_form_and_chunked_body_are_stored() {
    Rig::run(async |rig| {
        let form =
            "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nnameless\r\n--B--\r\n";
        let headers = [("content-encoding", "gzip")];
        let kind = "multipart/form-data; boundary=B";
        let response = rig
            .post("/files?path=f", kind, &headers, gzip(form.as_bytes()))
            .await;
        assert_eq!(response.status, 200, "{}", text(&response.body));
        assert_eq!(rig.get("/files?path=f").await.body, b"nameless");

        let (sending, response) = rig.start(
            "/files?path=s",
            &[("content-type", "application/octet-stream")],
        );
        for chunk in ["one ", "two"] {
            sending.unbounded_send(chunk.into()).unwrap();
        }
        drop(sending);
        assert_eq!(response.await.status, 200);
        assert_eq!(rig.get("/files?path=s").await.body, b"one two");
        let response = rig
            .post("/files?path=e", "application/octet-stream", &[], "")
            .await;
        assert_eq!(response.status, 200);
        assert_eq!(rig.get("/files?path=e").await.body, b"");
    })
    .await;
}

#[tokio::test]
async fn created_files_belong_to_the_callers_user() {
    use std::os::unix::fs::MetadataExt;
    Rig::run(async |rig| {
        let mut passwd = std::fs::read_to_string(rig.path("etc/passwd")).unwrap();
        passwd.push_str(&format!(
            "other:x:4321:4322::{}:/bin/sh\n",
            rig.path("home")
        ));
        std::fs::write(rig.path("etc/passwd"), passwd).unwrap();
        let kind = "application/octet-stream";
        rig.post("/files?path=d/e/f&username=other", kind, &[], "x")
            .await;
        for (path, mode) in [("d", 0o755), ("d/e", 0o755), ("d/e/f", 0o644)] {
            let metadata = std::fs::metadata(rig.path(&format!("home/{path}"))).unwrap();
            assert_eq!(
                (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
                (4321, 4322, mode),
                "{path}"
            );
        }
        let created = rig
            .call(
                "POST",
                "/filesystem.Filesystem/MakeDir",
                &[
                    ("content-type", "application/json"),
                    ("authorization", "Basic b3RoZXI6"),
                ],
                r#"{"path":"g/h"}"#,
            )
            .await
            .json();
        assert_eq!(created["entry"]["owner"], "other");
        assert_eq!(std::fs::metadata(rig.path("home/g")).unwrap().uid(), 4321);
    })
    .await;
}

#[tokio::test]
async fn compose_concatenates_and_removes_sources() {
    Rig::run(async |rig| {
        for (name, content) in [("p1", "one "), ("p2", "two")] {
            std::fs::write(rig.path(&format!("home/{name}")), content).unwrap();
        }
        let body = r#"{"source_paths":["p1","p2"],"destination":"sub/all.txt"}"#;
        let response = rig.post("/files/compose", "application/json", &[], body).await;
        let expected = serde_json::json!({"path": rig.path("home/sub/all.txt"), "name": "all.txt", "type": "file"});
        assert_eq!((response.status, response.json()), (200, expected));
        assert_eq!(rig.get("/files?path=sub/all.txt").await.body, b"one two");
        assert_eq!(rig.get("/files?path=p1").await.status, 404);
        let again = rig.post("/files/compose", "application/json", &[], body).await;
        assert_eq!(again.status, 404);
        for invalid in [r#"{"source_paths":[],"destination":"x"}"#, "{}", r#"{"source_paths":["sub"],"destination":"x"}"#] {
            assert_eq!(rig.post("/files/compose", "application/json", &[], invalid).await.status, 400);
        }
        let remaining: Vec<_> = std::fs::read_dir(rig.path("home/sub")).unwrap().collect();
        assert_eq!(remaining.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn signed_url_is_accepted_without_a_token() {
    Rig::run(async |rig| {
        let body = r#"{"accessToken":"0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0"}"#;
        rig.post("/init", "application/json", &[], body).await;
        std::fs::write(rig.path("home/hello.txt"), "hello").unwrap();
        let signed = "/files?path=hello.txt&username=user&signature=v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E";
        assert_eq!(rig.get(signed).await.body, b"hello");
        let cases = [
            ("/files?path=hello.txt", "missing signature query parameter"),
            ("/files?path=other&username=user&signature=v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E", "invalid signature"),
        ];
        for (url, message) in cases {
            let response = rig.get(url).await;
            assert_eq!((response.status, response.json()["message"].as_str()), (401, Some(message)));
        }
        let wrong = rig.get_with(signed, &[("x-access-token", "no")]).await;
        assert_eq!(wrong.json()["message"], "access token present in header but does not match");
        let rpc = rig.unary("List", "{}").await;
        assert_eq!((rpc.status, rpc.json()["code"].as_u64()), (401, Some(401)));
    })
    .await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut all = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut all)
        .unwrap();
    all
}
