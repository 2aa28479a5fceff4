//! Whole files in and out.

use crate::rig::{Rig, text};

#[tokio::test]
async fn files_go_in_and_out() {
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
async fn what_cannot_be_read_is_told_in_json() {
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
            rig.get("/files?path=x&username=nobody-here").await.status,
            401
        );
    })
    .await;
}

#[tokio::test]
async fn compressed_bytes_go_in_and_out() {
    Rig::run(async |rig| {
        for size in [10, 500_000] {
            let content = b"0123456789".repeat(size / 10);
            let packed = gzip(&content);
            let headers = [("content-encoding", "gzip")];
            let kind = "application/octet-stream";
            let answer = rig.post("/files?path=z", kind, &headers, &packed).await;
            assert_eq!(answer.status, 200, "{}", text(&answer.body));
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
        let refuses = [("accept-encoding", "identity;q=0")];
        assert_eq!(rig.get_with("/files?path=z", &refuses).await.status, 406);
        let odd = [("content-encoding", "br")];
        let answer = rig
            .post("/files?path=z", "application/octet-stream", &odd, "x")
            .await;
        assert_eq!(answer.status, 400);
        let cut = [("content-encoding", "gzip")];
        let answer = rig
            .post("/files?path=z", "application/octet-stream", &cut, "no gzip")
            .await;
        assert_eq!(answer.status, 400);
    })
    .await;
}

#[tokio::test]
async fn a_compressed_form_and_a_body_of_unknown_length_are_read() {
    Rig::run(async |rig| {
        let form =
            "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nnameless\r\n--B--\r\n";
        let headers = [("content-encoding", "gzip")];
        let kind = "multipart/form-data; boundary=B";
        let answer = rig
            .post("/files?path=f", kind, &headers, gzip(form.as_bytes()))
            .await;
        assert_eq!(answer.status, 200, "{}", text(&answer.body));
        assert_eq!(rig.get("/files?path=f").await.body, b"nameless");

        let (sending, answer) = rig.start(
            "/files?path=s",
            &[("content-type", "application/octet-stream")],
        );
        for piece in ["one ", "two"] {
            sending.unbounded_send(piece.into()).unwrap();
        }
        drop(sending);
        assert_eq!(answer.await.status, 200);
        assert_eq!(rig.get("/files?path=s").await.body, b"one two");
        let answer = rig
            .post("/files?path=e", "application/octet-stream", &[], "")
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(rig.get("/files?path=e").await.body, b"");
    })
    .await;
}

#[tokio::test]
async fn what_is_uploaded_belongs_to_its_user() {
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
            let found = std::fs::metadata(rig.path(&format!("home/{path}"))).unwrap();
            assert_eq!(
                (found.uid(), found.gid(), found.mode() & 0o777),
                (4321, 4322, mode),
                "{path}"
            );
        }
        let made = rig
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
        assert_eq!(made["entry"]["owner"], "other");
        assert_eq!(std::fs::metadata(rig.path("home/g")).unwrap().uid(), 4321);
    })
    .await;
}

#[tokio::test]
async fn files_are_put_together() {
    Rig::run(async |rig| {
        for (name, content) in [("p1", "one "), ("p2", "two")] {
            std::fs::write(rig.path(&format!("home/{name}")), content).unwrap();
        }
        let body = r#"{"source_paths":["p1","p2"],"destination":"sub/all.txt"}"#;
        let answer = rig.post("/files/compose", "application/json", &[], body).await;
        let expected = serde_json::json!({"path": rig.path("home/sub/all.txt"), "name": "all.txt", "type": "file"});
        assert_eq!((answer.status, answer.json()), (200, expected));
        assert_eq!(rig.get("/files?path=sub/all.txt").await.body, b"one two");
        assert_eq!(rig.get("/files?path=p1").await.status, 404);
        let gone = rig.post("/files/compose", "application/json", &[], body).await;
        assert_eq!(gone.status, 404);
        for bad in [r#"{"source_paths":[],"destination":"x"}"#, "{}", r#"{"source_paths":["sub"],"destination":"x"}"#] {
            assert_eq!(rig.post("/files/compose", "application/json", &[], bad).await.status, 400);
        }
        let left: Vec<_> = std::fs::read_dir(rig.path("home/sub")).unwrap().collect();
        assert_eq!(left.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_signed_url_is_let_in_without_a_token() {
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
            let refused = rig.get(url).await;
            assert_eq!((refused.status, refused.json()["message"].as_str()), (401, Some(message)));
        }
        let wrong = rig.get_with(signed, &[("x-access-token", "no")]).await;
        assert_eq!(wrong.json()["message"], "access token present in header but does not match");
        let rpc = rig.unary("List", "{}").await;
        assert_eq!((rpc.status, rpc.json()["code"].as_u64()), (401, Some(401)));
    })
    .await;
}

#[tokio::test]
async fn pages_of_other_origins_may_call() {
    Rig::run(async |rig| {
        let asks = [
            ("origin", "https://page.example"),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "x-access-token,content-type",
            ),
        ];
        let answer = rig
            .call("OPTIONS", "/process.Process/Start", &asks, "")
            .await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "x-access-token,content-type"
        );
        assert!(
            answer
                .header("access-control-allow-methods")
                .contains("DELETE")
        );
        let answer = rig.get_with("/health", &asks[..1]).await;
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(
            answer
                .header("access-control-expose-headers")
                .contains("Location")
        );
        assert!(
            rig.get("/health")
                .await
                .headers
                .get("access-control-allow-origin")
                .is_none()
        );
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
