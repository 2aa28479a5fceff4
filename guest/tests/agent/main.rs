//! The agent over TCP, as its callers see it, on this machine and with real processes.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use guest_api::{InitRequest, Token};
use rig::{Rig, events, text};

#[tokio::test]
async fn it_is_healthy_and_says_how_busy_it_is() {
    Rig::run(async |rig| {
        assert_eq!(rig.get("/health").await.status, 204);
        let metrics = rig.get("/metrics").await.json();
        for name in ["cpu_count", "mem_total", "mem_used", "disk_total", "ts"] {
            assert!(metrics[name].as_f64().unwrap() > 0.0, "{name}: {metrics}");
        }
        assert_eq!(rig.get("/nowhere").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn it_is_told_what_it_is_and_asks_for_the_token_from_then_on() {
    Rig::run(async |rig| {
        let body = r#"{"accessToken":"sesame","envVars":{"A":"b"},"sandboxId":"i0"}"#;
        assert_eq!(
            rig.post("/init", "application/json", &[], body)
                .await
                .status,
            204
        );
        let refused = rig.get("/envs").await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json()["code"], 401);
        let shown = rig
            .call("GET", "/envs", &[("x-access-token", "sesame")], "")
            .await;
        assert_eq!(shown.json()["A"], "b");
        assert_eq!(rig.get("/health").await.status, 204);
        assert_eq!(rig.get("/files?path=/etc/hostname").await.status, 401);
        let bad = rig
            .post(
                "/init",
                "application/json",
                &[],
                r#"{"accessToken":["sesame"]}"#,
            )
            .await;
        assert_eq!(bad.status, 400);
        assert!(!text(&bad.body).contains("sesame"), "{}", text(&bad.body));
    })
    .await;
}

#[tokio::test]
async fn the_host_library_speaks_to_it() {
    Rig::run(async |rig| {
        guest_api::client::health(rig.unix().await).await.unwrap();
        let request = InitRequest {
            access_token: Some(Token::new("t")),
            ..InitRequest::default()
        };
        guest_api::client::init(rig.unix().await, &request)
            .await
            .unwrap();
        assert_eq!(rig.get("/envs").await.status, 401);
        let wrong = InitRequest {
            timestamp: Some("now".to_owned()),
            ..InitRequest::default()
        };
        let error = guest_api::client::init(rig.unix().await, &wrong)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("400"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn only_the_host_may_say_what_it_is() {
    Rig::run_for(guest::Peer::Other, async |rig| {
        assert_eq!(
            rig.post("/init", "application/json", &[], "{}")
                .await
                .status,
            403
        );
        assert_eq!(rig.get("/envs").await.status, 200);
    })
    .await;
}

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
async fn a_process_starts_speaks_and_ends() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"/bin/sh","args":["-c","echo out; echo err >&2; pwd; exit 3"]},"stdin":false}"#;
        let answer = rig.stream("Start", &[], body).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/connect+json"));
        let (events, end) = events(&answer.body);
        assert!(events[0]["event"]["start"]["pid"].as_u64().unwrap() > 1);
        assert_eq!(rig::output(&events, "stdout"), format!("out\n{}\n", rig.path("home")).as_bytes());
        assert_eq!(rig::output(&events, "stderr"), b"err\n");
        let last = &events.last().unwrap()["event"]["end"];
        assert_eq!((last["exitCode"].as_i64(), last["status"].as_str()), (Some(3), Some("exit status 3")));
        assert_eq!(end, serde_json::json!({}));
    })
    .await;
}

#[tokio::test]
async fn a_process_has_the_environment_of_the_contract() {
    Rig::run(async |rig| {
        rig.post(
            "/init",
            "application/json",
            &[],
            r#"{"envVars":{"A":"told","B":"told"},"sandboxId":"i0"}"#,
        )
        .await;
        let body = r#"{"process":{"cmd":"env","envs":{"B":"asked"}},"stdin":false}"#;
        let (events, _) = events(&rig.stream("Start", &[], body).await.body);
        let output = text(&rig::output(&events, "stdout"));
        let home = format!("HOME={}", rig.path("home"));
        for line in [
            "A=told",
            "B=asked",
            "USER=user",
            "LOGNAME=user",
            "E2B_SANDBOX=true",
            "E2B_SANDBOX_ID=i0",
            &home,
        ] {
            assert!(
                output.lines().any(|found| found == line),
                "{line} in {output}"
            );
        }
        assert!(output.contains("PATH=/usr/local/sbin:"), "{output}");
    })
    .await;
}

#[tokio::test]
async fn all_of_a_long_output_arrives_whatever_its_bytes() {
    Rig::run(async |rig| {
        let body =
            r#"{"process":{"cmd":"head","args":["-c","1000000","/dev/urandom"]},"stdin":false}"#;
        let (events, _) = events(&rig.stream("Start", &[], body).await.body);
        assert_eq!(rig::output(&events, "stdout").len(), 1_000_000);
        assert!(
            rig::chunks(&events, "stdout")
                .iter()
                .all(|chunk| chunk.len() <= 32 * 1024)
        );
    })
    .await;
}

#[tokio::test]
async fn a_process_is_killed_at_the_deadline_with_what_it_started() {
    Rig::run(async |rig| {
        let body =
            r#"{"process":{"cmd":"/bin/sh","args":["-c","sleep 600; echo no"]},"stdin":false}"#;
        let answer = rig
            .stream("Start", &[("connect-timeout-ms", "200")], body)
            .await;
        let (events, end) = events(&answer.body);
        assert_eq!(events.len(), 1, "the start alone: {events:?}");
        assert_eq!(end["error"]["code"], "deadline_exceeded");
        // Another caller sees how it ended.
        let pid = &events[0]["event"]["start"]["pid"];
        let mut again = rig
            .open_stream("Connect", &format!(r#"{{"process":{{"pid":{pid}}}}}"#))
            .await;
        assert_eq!(&again.next_event().await["event"]["start"]["pid"], pid);
        let end = again.next_event().await;
        assert_eq!(end["event"]["end"]["status"], "signal: killed", "{end}");
        assert_eq!(end["event"]["end"]["exitCode"], -1);
    })
    .await;
}

#[tokio::test]
async fn a_process_outlives_its_caller_and_is_found_again() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"cat"},"tag":"mine"}"#;
        let mut following = rig.open_stream("Start", body).await;
        let first = following.next_event().await;
        let pid = first["event"]["start"]["pid"].as_u64().unwrap();
        drop(following);

        let list = rig.unary("List", "{}").await.json();
        assert_eq!(
            (
                list["processes"][0]["pid"].as_u64(),
                &list["processes"][0]["tag"]
            ),
            (Some(pid), &"mine".into())
        );
        let mut again = rig
            .open_stream("Connect", r#"{"process":{"tag":"mine"}}"#)
            .await;
        assert_eq!(
            again.next_event().await["event"]["start"]["pid"].as_u64(),
            Some(pid)
        );
        let select = format!(r#"{{"process":{{"pid":{pid}}}"#);
        let input = rig
            .unary(
                "SendInput",
                &format!(r#"{select},"input":{{"stdin":"aGkK"}}}}"#),
            )
            .await;
        assert_eq!(input.status, 200, "{}", text(&input.body));
        assert_eq!(again.next_event().await["event"]["data"]["stdout"], "aGkK");
        assert_eq!(
            rig.unary("CloseStdin", &format!("{select}}}")).await.status,
            200
        );
        assert_eq!(
            again.next_event().await["event"]["end"]["status"],
            "exit status 0"
        );
        assert_eq!(again.next_event().await, serde_json::json!({}));

        let (late, _) = events(
            &rig.stream("Connect", &[], &format!("{select}}}"))
                .await
                .body,
        );
        assert_eq!(late.len(), 2, "start and end of one that has just ended");
        assert_eq!(rig.unary("List", "{}").await.json(), serde_json::json!({}));
        let gone = rig
            .unary(
                "SendInput",
                &format!(r#"{select},"input":{{"stdin":"aGkK"}}}}"#),
            )
            .await;
        assert_eq!(
            (gone.status, gone.json()["code"].as_str()),
            (404, Some("not_found"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_signal_ends_a_process() {
    Rig::run(async |rig| {
        for (signal, status) in [
            ("SIGNAL_SIGTERM", "signal: terminated"),
            ("SIGNAL_SIGKILL", "signal: killed"),
        ] {
            let mut following = rig
                .open_stream(
                    "Start",
                    r#"{"process":{"cmd":"sleep","args":["600"]},"tag":"s"}"#,
                )
                .await;
            following.next_event().await;
            let body = format!(r#"{{"process":{{"tag":"s"}},"signal":"{signal}"}}"#);
            assert_eq!(rig.unary("SendSignal", &body).await.status, 200);
            let end = following.next_event().await;
            assert_eq!(end["event"]["end"]["status"], status, "{end}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_keeps_nobody_from_being_reaped() {
    Rig::run(async |rig| {
        let mut stalled = rig
            .open_stream("Start", r#"{"process":{"cmd":"yes"},"tag":"loud"}"#)
            .await;
        stalled.next_event().await;
        let body = r#"{"process":{"cmd":"true"},"stdin":false}"#;
        let (others, _) = events(&rig.stream("Start", &[], body).await.body);
        assert_eq!(
            others.last().unwrap()["event"]["end"]["status"],
            "exit status 0"
        );
        let kill = rig
            .unary(
                "SendSignal",
                r#"{"process":{"tag":"loud"},"signal":"SIGNAL_SIGKILL"}"#,
            )
            .await;
        assert_eq!(kill.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_started_is_told_in_connect() {
    Rig::run(async |rig| {
        let cases = [
            (
                r#"{"process":{"cmd":"/no/such/program"}}"#,
                "invalid_argument",
            ),
            (
                r#"{"process":{"cmd":"true","cwd":"/no/such"}}"#,
                "invalid_argument",
            ),
            (r#"{"process":{"cmd":""}}"#, "invalid_argument"),
            (r#"{"tag":"x"}"#, "invalid_argument"),
            (r#"{"process":"#, "invalid_argument"),
        ];
        for (body, code) in cases {
            let (events, end) = events(&rig.stream("Start", &[], body).await.body);
            assert!(events.is_empty());
            assert_eq!(end["error"]["code"], code, "{body}: {end}");
        }
        let stranger = [("authorization", "Basic c3RyYW5nZXI6")];
        let (_, end) = events(
            &rig.stream("Start", &stranger, r#"{"process":{"cmd":"true"}}"#)
                .await
                .body,
        );
        assert_eq!(end["error"]["code"], "unauthenticated");
        assert_eq!(end["error"]["message"], "invalid username: 'stranger'");
        assert_eq!(
            rig.unary("Nonsense", "{}").await.json()["code"],
            "unimplemented"
        );
        assert_eq!(
            rig.post("/process.Process/List", "text/plain", &[], "")
                .await
                .status,
            415
        );
    })
    .await;
}
