//! What processes are given to read.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::rig::{Rig, enveloped, events, raw_messages};

const STREAM: [(&str, &str); 1] = [("content-type", "application/connect+json")];

#[tokio::test]
async fn a_stream_of_input_reaches_the_process_as_it_comes() {
    Rig::run(async |rig| {
        let mut following = rig
            .open_stream("Start", r#"{"process":{"cmd":"cat"}}"#)
            .await;
        let pid = following.next_event().await["event"]["start"]["pid"].clone();
        let (sending, answer) = rig.start("/process.Process/StreamInput", &STREAM);
        let send = |message: &str| sending.unbounded_send(enveloped(message).into()).unwrap();
        send(&format!(r#"{{"start":{{"process":{{"pid":{pid}}}}}}}"#));
        for text in ["one", "two"] {
            let data = STANDARD.encode(text);
            send(r#"{"keepalive":{}}"#);
            send(&format!(r#"{{"data":{{"input":{{"stdin":"{data}"}}}}}}"#));
            assert_eq!(
                following.next_event().await["event"]["data"]["stdout"],
                data.as_str()
            );
        }
        drop(sending);
        let answer = answer.await;
        assert_eq!(raw_messages(&answer.body), (vec![&b"{}"[..]], &b"{}"[..]));
        // The process reads on until its input is closed.
        let body = format!(r#"{{"process":{{"pid":{pid}}}}}"#);
        assert_eq!(rig.unary("CloseStdin", &body).await.status, 200);
        assert_eq!(
            following.next_event().await["event"]["end"]["status"],
            "exit status 0"
        );
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_input_that_is_none_is_refused() {
    Rig::run(async |rig| {
        let mut following = rig
            .open_stream("Start", r#"{"process":{"cmd":"cat"},"tag":"t"}"#)
            .await;
        following.next_event().await;
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
            let answer = rig
                .post("/process.Process/StreamInput", STREAM[0].1, &[], body)
                .await;
            let (_, end) = events(&answer.body);
            assert_eq!(end["error"]["code"], code, "{messages:?}: {end}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_process_that_does_not_read_keeps_nobody_from_closing_its_input() {
    Rig::run(async |rig| {
        let mut following = rig
            .open_stream(
                "Start",
                r#"{"process":{"cmd":"sleep","args":["600"]},"tag":"deaf"}"#,
            )
            .await;
        following.next_event().await;
        let (sending, answer) = rig.start("/process.Process/StreamInput", &STREAM);
        let data = STANDARD.encode(vec![b'x'; 1 << 20]);
        for message in [
            r#"{"start":{"process":{"tag":"deaf"}}}"#.to_owned(),
            format!(r#"{{"data":{{"input":{{"stdin":"{data}"}}}}}}"#),
        ] {
            sending.unbounded_send(enveloped(message).into()).unwrap();
        }
        // A pipe holds less than either of them writes, and a call with a limit ends at that.
        let limited = rig
            .post(
                "/process.Process/SendInput",
                "application/json",
                &[("connect-timeout-ms", "100")],
                format!(r#"{{"process":{{"tag":"deaf"}},"input":{{"stdin":"{data}"}}}}"#),
            )
            .await;
        assert_eq!(
            (limited.status, limited.json()["code"].as_str()),
            (504, Some("deadline_exceeded"))
        );
        assert_eq!(
            rig.unary("CloseStdin", r#"{"process":{"tag":"deaf"}}"#)
                .await
                .status,
            200
        );
        let answer = answer.await;
        let (_, end) = events(&answer.body);
        assert_eq!(end["error"]["code"], "failed_precondition", "{end}");
        let kill = r#"{"process":{"tag":"deaf"},"signal":"SIGNAL_SIGKILL"}"#;
        assert_eq!(rig.unary("SendSignal", kill).await.status, 200);
        assert_eq!(
            following.next_event().await["event"]["end"]["status"],
            "signal: killed"
        );
    })
    .await;
}

#[tokio::test]
async fn a_process_started_without_input_reads_nothing() {
    Rig::run(async |rig| {
        let answer = rig
            .stream("Start", &[], r#"{"process":{"cmd":"cat"},"stdin":false}"#)
            .await;
        let (events, _) = events(&answer.body);
        assert_eq!(
            events.last().unwrap()["event"]["end"]["status"],
            "exit status 0"
        );
    })
    .await;
}
