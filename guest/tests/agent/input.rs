//! Input of processes.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::rig::{Rig, enveloped, events, raw_messages};

const STREAM: [(&str, &str); 1] = [("content-type", "application/connect+json")];

#[tokio::test]
async fn streamed_input_reaches_the_process_immediately() {
    Rig::run(async |rig| {
        let mut stream = rig
            .open_stream("Start", r#"{"process":{"cmd":"cat"}}"#)
            .await;
        let pid = stream.next_event().await["event"]["start"]["pid"].clone();
        let (sending, response) = rig.start("/process.Process/StreamInput", &STREAM);
        let send = |message: &str| sending.unbounded_send(enveloped(message).into()).unwrap();
        send(&format!(r#"{{"start":{{"process":{{"pid":{pid}}}}}}}"#));
        for text in ["one", "two"] {
            let data = STANDARD.encode(text);
            send(r#"{"keepalive":{}}"#);
            send(&format!(r#"{{"data":{{"input":{{"stdin":"{data}"}}}}}}"#));
            assert_eq!(
                stream.next_event().await["event"]["data"]["stdout"],
                data.as_str()
            );
        }
        drop(sending);
        let response = response.await;
        assert_eq!(raw_messages(&response.body), (vec![&b"{}"[..]], &b"{}"[..]));
        // The process reads until its input is closed.
        let body = format!(r#"{{"process":{{"pid":{pid}}}}}"#);
        assert_eq!(rig.unary("CloseStdin", &body).await.status, 200);
        assert_eq!(
            stream.next_event().await["event"]["end"]["status"],
            "exit status 0"
        );
    })
    .await;
}

#[tokio::test]
async fn invalid_input_streams_are_refused() {
    Rig::run(async |rig| {
        let mut stream = rig
            .open_stream("Start", r#"{"process":{"cmd":"cat"},"tag":"t"}"#)
            .await;
        stream.next_event().await;
        let start = r#"{"start":{"process":{"tag":"t"}}}"#;
        for (messages, code) in [
            (
                &[r#"{"data":{"input":{"stdin":"aGk="}}}"#][..],
                "invalid_argument",
            ),
            (&[start, start], "invalid_argument"),
            (&[r#"{"start":{"process":{"tag":"other"}}}"#], "not_found"),
            (
                &[start, r#"{"data":{"input":{"pty":"aGk="}}}"#],
                "failed_precondition",
            ),
            (&[r#"{"start":{}}"#], "invalid_argument"),
        ] {
            let body = messages.iter().flat_map(enveloped).collect::<Vec<_>>();
            let response = rig
                .post("/process.Process/StreamInput", STREAM[0].1, &[], body)
                .await;
            let (_, end) = events(&response.body);
            assert_eq!(end["error"]["code"], code, "{messages:?}: {end}");
        }
    })
    .await;
}

#[tokio::test]
async fn close_stdin_fails_blocked_writes() {
    Rig::run(async |rig| {
        let mut stream = rig
            .open_stream(
                "Start",
                r#"{"process":{"cmd":"sleep","args":["600"]},"tag":"blocked"}"#,
            )
            .await;
        stream.next_event().await;
        let (sending, response) = rig.start("/process.Process/StreamInput", &STREAM);
        let data = STANDARD.encode(vec![b'x'; 1 << 20]);
        for message in [
            r#"{"start":{"process":{"tag":"blocked"}}}"#.to_owned(),
            format!(r#"{{"data":{{"input":{{"stdin":"{data}"}}}}}}"#),
        ] {
            sending.unbounded_send(enveloped(message).into()).unwrap();
        }
        // Both writes exceed the capacity of the pipe. The one with a timeout fails after it.
        let timed_out = rig
            .post(
                "/process.Process/SendInput",
                "application/json",
                &[("connect-timeout-ms", "100")],
                format!(r#"{{"process":{{"tag":"blocked"}},"input":{{"stdin":"{data}"}}}}"#),
            )
            .await;
        assert_eq!(
            (timed_out.status, timed_out.json()["code"].as_str()),
            (504, Some("deadline_exceeded"))
        );
        assert_eq!(
            rig.unary("CloseStdin", r#"{"process":{"tag":"blocked"}}"#)
                .await
                .status,
            200
        );
        let response = response.await;
        let (_, end) = events(&response.body);
        assert_eq!(end["error"]["code"], "failed_precondition", "{end}");
        let kill = r#"{"process":{"tag":"blocked"},"signal":"SIGNAL_SIGKILL"}"#;
        assert_eq!(rig.unary("SendSignal", kill).await.status, 200);
        assert_eq!(
            stream.next_event().await["event"]["end"]["status"],
            "signal: killed"
        );
    })
    .await;
}

#[tokio::test]
async fn process_without_stdin_reads_end_of_file() {
    Rig::run(async |rig| {
        let response = rig
            .stream("Start", &[], r#"{"process":{"cmd":"cat"},"stdin":false}"#)
            .await;
        let (events, _) = events(&response.body);
        assert_eq!(
            events.last().unwrap()["event"]["end"]["status"],
            "exit status 0"
        );
    })
    .await;
}
