//! Processes: starting, following, signalling.

use crate::rig::{self, Rig, events, text};

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

#[tokio::test]
async fn a_process_that_was_killed_is_gone() {
    Rig::run(async |rig| {
        let body =
            r#"{"process":{"cmd":"/bin/sh","args":["-c","sleep 600"]},"tag":"k","stdin":false}"#;
        let mut following = rig.open_stream("Start", body).await;
        following.next_event().await;
        let kill = r#"{"process":{"tag":"k"},"signal":"SIGNAL_SIGKILL"}"#;
        assert_eq!(rig.unary("SendSignal", kill).await.status, 200);
        assert_eq!(rig.unary("List", "{}").await.json(), serde_json::json!({}));
        assert_eq!(rig.unary("SendSignal", kill).await.status, 404);
    })
    .await;
}
