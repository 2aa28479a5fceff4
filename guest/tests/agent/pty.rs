//! Processes with terminals.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};

use serde_json::Value;
use tokio::time::timeout;

use crate::rig::{EventStream, Rig, text};

/// The timeout for the next output.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads output until it contains `wanted`, and returns it.
async fn output_until(stream: &mut EventStream, wanted: &str) -> String {
    let mut all = Vec::new();
    while !text(&all).contains(wanted) {
        let event = timeout(OUTPUT_TIMEOUT, stream.next_event())
            .await
            .unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", text(&all)));
        let data = event["event"]["data"]["pty"]
            .as_str()
            .unwrap_or_else(|| panic!("no output: {event}, after {:?}", text(&all)));
        all.extend(STANDARD.decode(data).unwrap());
    }
    text(&all)
}

/// Reads until the end event, and returns it.
async fn end(stream: &mut EventStream) -> Value {
    loop {
        let event = timeout(OUTPUT_TIMEOUT, stream.next_event()).await.unwrap();
        if !event["event"]["end"].is_null() {
            return event["event"]["end"].clone();
        }
    }
}

async fn type_in(rig: &Rig, tag: &str, keys: &str) {
    let keys = STANDARD.encode(keys);
    let body = format!(r#"{{"process":{{"tag":"{tag}"}},"input":{{"pty":"{keys}"}}}}"#);
    let response = rig.unary("SendInput", &body).await;
    assert_eq!(response.status, 200, "{}", text(&response.body));
}

#[tokio::test]
async fn process_has_own_terminal_of_requested_size() {
    Rig::run(async |rig| {
        let script = "tty; stty size; read line; stty size; exec sleep 600";
        let body = format!(
            r#"{{"process":{{"cmd":"/bin/sh","args":["-c","{script}"],"envs":{{"TERM":"xterm-256color"}}}},
                "pty":{{"size":{{"cols":100,"rows":40}}}},"tag":"script"}}"#
        );
        let mut stream = rig.open_stream("Start", &body).await;
        assert!(stream.next_event().await["event"]["start"]["pid"].is_number());
        let output = output_until(&mut stream, "40 100").await;
        assert!(output.contains("/dev/pts/"), "{output:?}");

        let resize = r#"{"process":{"tag":"script"},"pty":{"size":{"cols":33,"rows":22}}}"#;
        assert_eq!(rig.unary("Update", resize).await.status, 200);
        type_in(&rig, "script", "\n").await;
        output_until(&mut stream, "22 33").await;
        // Ctrl+C raises a signal, because the terminal controls the session.
        type_in(&rig, "script", "\x03").await;
        assert_eq!(end(&mut stream).await["status"], "signal: interrupt");
    })
    .await;
}

#[tokio::test]
async fn login_shell_executes_typed_commands() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"/bin/bash","args":["-i","-l"],"envs":{"TERM":"xterm-256color"}},
                       "pty":{"size":{"cols":80,"rows":24}},"tag":"shell"}"#;
        let mut stream = rig.open_stream("Start", body).await;
        stream.next_event().await;
        type_in(&rig, "shell", "echo result-$((1+1)); exit 3\n").await;
        output_until(&mut stream, "result-2").await;
        assert_eq!(end(&mut stream).await["exitCode"], 3);
    })
    .await;
}

#[tokio::test]
async fn pty_and_stdin_operations_are_not_interchangeable() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"cat"},"pty":{"size":{"cols":80,"rows":24}},"tag":"term"}"#;
        let mut on_pty = rig.open_stream("Start", body).await;
        on_pty.next_event().await;
        let mut on_pipe = rig
            .open_stream("Start", r#"{"process":{"cmd":"cat"},"tag":"pipe"}"#)
            .await;
        on_pipe.next_event().await;
        let cases = [
            (
                "SendInput",
                r#"{"process":{"tag":"term"},"input":{"stdin":"aGkK"}}"#,
            ),
            (
                "SendInput",
                r#"{"process":{"tag":"pipe"},"input":{"pty":"aGkK"}}"#,
            ),
            ("CloseStdin", r#"{"process":{"tag":"term"}}"#),
            (
                "Update",
                r#"{"process":{"tag":"pipe"},"pty":{"size":{"cols":1,"rows":1}}}"#,
            ),
        ];
        for (procedure, body) in cases {
            let response = rig.unary(procedure, body).await.json();
            assert_eq!(
                response["code"], "failed_precondition",
                "{body}: {response}"
            );
        }
        type_in(&rig, "term", "hi\n\x04").await;
        // Echoed by the terminal, then written by cat.
        output_until(&mut on_pty, "hi\r\nhi").await;
        assert_eq!(end(&mut on_pty).await["status"], "exit status 0");
        let missing = rig
            .unary(
                "Update",
                r#"{"process":{"pid":1},"pty":{"size":{"cols":1,"rows":1}}}"#,
            )
            .await;
        assert_eq!(missing.json()["message"], "process with pid 1 not found");
    })
    .await;
}

#[tokio::test]
async fn terminal_output_arrives_in_16_kib_chunks() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"/bin/sh","args":["-c","head -c 200000 /dev/zero | tr '\\0' x"]},"pty":{}}"#;
        let response = rig.stream("Start", &[], body).await;
        let (events, _) = crate::rig::events(&response.body);
        let chunks = crate::rig::chunks(&events, "pty");
        assert_eq!(chunks.concat().len(), 200_000);
        assert!(chunks.iter().all(|chunk| chunk.len() <= 16 * 1024));
    })
    .await;
}
