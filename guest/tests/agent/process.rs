//! Starting, stream and signalling processes.

use crate::rig::{self, Rig, events, text};

#[tokio::test]
async fn start_streams_output_and_exit_status() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"/bin/sh","args":["-c","echo out; echo err >&2; pwd; exit 3"]},"stdin":false}"#;
        let response = rig.stream("Start", &[], body).await;
        assert_eq!((response.status, response.header("content-type")), (200, "application/connect+json"));
        let (events, end) = events(&response.body);
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
async fn process_environment_matches_the_contract() {
    Rig::run(async |rig| {
        rig.post(
            "/init",
            "application/json",
            &[],
            r#"{"envVars":{"A":"host","B":"host"},"sandboxId":"i0"}"#,
        )
        .await;
        let body = r#"{"process":{"cmd":"env","envs":{"B":"caller"}},"stdin":false}"#;
        let (events, _) = events(&rig.stream("Start", &[], body).await.body);
        let output = text(&rig::output(&events, "stdout"));
        let home = format!("HOME={}", rig.path("home"));
        for line in [
            "A=host",
            "B=caller",
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
async fn long_binary_output_arrives_in_bounded_chunks() {
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
async fn process_group_is_killed_at_the_deadline() {
    Rig::run(async |rig| {
        let body =
            r#"{"process":{"cmd":"/bin/sh","args":["-c","sleep 600; echo no"]},"stdin":false}"#;
        let response = rig
            .stream("Start", &[("connect-timeout-ms", "200")], body)
            .await;
        let (events, end) = events(&response.body);
        assert_eq!(events.len(), 1, "only the start: {events:?}");
        assert_eq!(end["error"]["code"], "deadline_exceeded");
        // Another caller receives the exit status.
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
async fn process_survives_a_disconnect_and_is_followed_again() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"cat"},"tag":"mine"}"#;
        let mut stream = rig.open_stream("Start", body).await;
        let first = stream.next_event().await;
        let pid = first["event"]["start"]["pid"].as_u64().unwrap();
        drop(stream);

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

        let (ended, _) = events(
            &rig.stream("Connect", &[], &format!("{select}}}"))
                .await
                .body,
        );
        assert_eq!(ended.len(), 2, "start and end of a recently ended process");
        assert_eq!(rig.unary("List", "{}").await.json(), serde_json::json!({}));
        let ended = rig
            .unary(
                "SendInput",
                &format!(r#"{select},"input":{{"stdin":"aGkK"}}}}"#),
            )
            .await;
        assert_eq!(
            (ended.status, ended.json()["code"].as_str()),
            (404, Some("not_found"))
        );
    })
    .await;
}

#[tokio::test]
async fn signals_terminate_a_process() {
    Rig::run(async |rig| {
        for (signal, status) in [
            ("SIGNAL_SIGTERM", "signal: terminated"),
            ("SIGNAL_SIGKILL", "signal: killed"),
        ] {
            let mut stream = rig
                .open_stream(
                    "Start",
                    r#"{"process":{"cmd":"sleep","args":["600"]},"tag":"s"}"#,
                )
                .await;
            stream.next_event().await;
            let body = format!(r#"{{"process":{{"tag":"s"}},"signal":"{signal}"}}"#);
            assert_eq!(rig.unary("SendSignal", &body).await.status, 200);
            let end = stream.next_event().await;
            assert_eq!(end["event"]["end"]["status"], status, "{end}");
        }
    })
    .await;
}

#[tokio::test]
async fn stalled_follower_does_not_delay_other_processes() {
    Rig::run(async |rig| {
        let mut stalled = rig
            .open_stream("Start", r#"{"process":{"cmd":"yes"},"tag":"stalled"}"#)
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
                r#"{"process":{"tag":"stalled"},"signal":"SIGNAL_SIGKILL"}"#,
            )
            .await;
        assert_eq!(kill.status, 200);
    })
    .await;
}

#[tokio::test]
async fn start_failures_are_connect_errors() {
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
        let unknown_user = [("authorization", "Basic dW5rbm93bjo=")];
        let (_, end) = events(
            &rig.stream("Start", &unknown_user, r#"{"process":{"cmd":"true"}}"#)
                .await
                .body,
        );
        assert_eq!(end["error"]["code"], "unauthenticated");
        assert_eq!(end["error"]["message"], "invalid username: 'unknown'");
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
async fn killed_process_is_not_found() {
    Rig::run(async |rig| {
        let body =
            r#"{"process":{"cmd":"/bin/sh","args":["-c","sleep 600"]},"tag":"k","stdin":false}"#;
        let mut stream = rig.open_stream("Start", body).await;
        stream.next_event().await;
        let kill = r#"{"process":{"tag":"k"},"signal":"SIGNAL_SIGKILL"}"#;
        assert_eq!(rig.unary("SendSignal", kill).await.status, 200);
        assert_eq!(rig.unary("List", "{}").await.json(), serde_json::json!({}));
        assert_eq!(rig.unary("SendSignal", kill).await.status, 404);
    })
    .await;
}
