//! Processes on terminals.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};

use serde_json::Value;
use tokio::time::timeout;

use crate::rig::{Following, Rig, text};

/// How long a terminal may show nothing new.
const LONGEST: Duration = Duration::from_secs(10);

/// Follows until the terminal has shown `wanted`, and returns what it showed.
async fn shown(following: &mut Following, wanted: &str) -> String {
    let mut all = Vec::new();
    while !text(&all).contains(wanted) {
        let event = timeout(LONGEST, following.next_event())
            .await
            .unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", text(&all)));
        let data = event["event"]["data"]["pty"]
            .as_str()
            .unwrap_or_else(|| panic!("no output: {event}, after {:?}", text(&all)));
        all.extend(STANDARD.decode(data).unwrap());
    }
    text(&all)
}

/// The end, after whatever is shown before it.
async fn end(following: &mut Following) -> Value {
    loop {
        let event = timeout(LONGEST, following.next_event()).await.unwrap();
        if !event["event"]["end"].is_null() {
            return event["event"]["end"].clone();
        }
    }
}

async fn type_in(rig: &Rig, tag: &str, keys: &str) {
    let keys = STANDARD.encode(keys);
    let body = format!(r#"{{"process":{{"tag":"{tag}"}},"input":{{"pty":"{keys}"}}}}"#);
    let answer = rig.unary("SendInput", &body).await;
    assert_eq!(answer.status, 200, "{}", text(&answer.body));
}

#[tokio::test]
async fn a_process_has_a_terminal_of_its_own_and_of_the_size_that_was_asked_for() {
    Rig::run(async |rig| {
        let script = "tty; stty size; read line; stty size; exec sleep 600";
        let body = format!(
            r#"{{"process":{{"cmd":"/bin/sh","args":["-c","{script}"],"envs":{{"TERM":"xterm-256color"}}}},
                "pty":{{"size":{{"cols":100,"rows":40}}}},"tag":"script"}}"#
        );
        let mut following = rig.open_stream("Start", &body).await;
        assert!(following.next_event().await["event"]["start"]["pid"].is_number());
        let output = shown(&mut following, "40 100").await;
        assert!(output.contains("/dev/pts/"), "{output:?}");

        let resize = r#"{"process":{"tag":"script"},"pty":{"size":{"cols":33,"rows":22}}}"#;
        assert_eq!(rig.unary("Update", resize).await.status, 200);
        type_in(&rig, "script", "\n").await;
        shown(&mut following, "22 33").await;
        // What is typed as Ctrl+C is a signal, as the terminal is the session's own.
        type_in(&rig, "script", "\x03").await;
        assert_eq!(end(&mut following).await["status"], "signal: interrupt");
    })
    .await;
}

#[tokio::test]
async fn a_login_shell_runs_what_is_typed() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"/bin/bash","args":["-i","-l"],"envs":{"TERM":"xterm-256color"}},
                       "pty":{"size":{"cols":80,"rows":24}},"tag":"shell"}"#;
        let mut following = rig.open_stream("Start", body).await;
        following.next_event().await;
        type_in(&rig, "shell", "echo said-$((1+1)); exit 3\n").await;
        shown(&mut following, "said-2").await;
        assert_eq!(end(&mut following).await["exitCode"], 3);
    })
    .await;
}

#[tokio::test]
async fn a_terminal_is_written_to_as_one_and_others_are_not() {
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
            let answer = rig.unary(procedure, body).await.json();
            assert_eq!(answer["code"], "failed_precondition", "{body}: {answer}");
        }
        type_in(&rig, "term", "hi\n\x04").await;
        // Once echoed by the terminal, once written by cat.
        shown(&mut on_pty, "hi\r\nhi").await;
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
async fn output_of_a_terminal_comes_in_chunks_of_16_kib_at_most() {
    Rig::run(async |rig| {
        let body = r#"{"process":{"cmd":"/bin/sh","args":["-c","head -c 200000 /dev/zero | tr '\\0' x"]},"pty":{}}"#;
        let answer = rig.stream("Start", &[], body).await;
        let (events, _) = crate::rig::events(&answer.body);
        let chunks = crate::rig::chunks(&events, "pty");
        assert_eq!(chunks.concat().len(), 200_000);
        assert!(chunks.iter().all(|chunk| chunk.len() <= 16 * 1024));
    })
    .await;
}
