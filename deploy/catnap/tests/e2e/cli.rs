//! The command line on a guest. `tests/command_line.rs` has its tests on a fake host.

use std::process::Output;

use serde_json::json;
use tokio::time::timeout;

use crate::rig::{Gateway, TIMEOUT};

async fn run(gateway: &Gateway, args: &[&str]) -> Output {
    timeout(TIMEOUT, gateway.catnap(args).output())
        .await
        .unwrap()
        .unwrap()
}

async fn exec(gateway: &Gateway, id: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = run(gateway, &[&["sandbox", "exec", id], args].concat()).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn exec_runs_commands_in_the_guest() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let id = &sandbox.id;
    let script = "pwd; echo $A; id -un; echo err >&2; exit 7";
    let args = ["--cwd", "/tmp", "--env", "A=b", "--"];
    let command = ["/bin/sh", "-c", script];
    let result = exec(&gateway, id, &[&args[..], &command].concat()).await;
    assert_eq!(
        result,
        (Some(7), "/tmp\nb\nuser\n".to_owned(), "err\n".to_owned())
    );
    let (code, _, error) = exec(&gateway, id, &["--", "/no/such/program"]).await;
    assert_ne!(code, Some(0));
    assert!(error.starts_with("catnap: "), "{error}");

    let paused = run(&gateway, &["sandbox", "pause", id]).await;
    assert!(paused.status.success());
    // The command wakes the sandbox, and a signal kills it.
    let (code, _, error) = exec(&gateway, id, &["--", "/bin/sh", "-c", "kill -TERM $$"]).await;
    assert_eq!(code, Some(128 + 15), "{error}");

    let script = "echo hello > /dev/console";
    let written = sandbox
        .run(&gateway, "root", &["/bin/sh", "-c", script])
        .await;
    assert_eq!(written.code, 0, "{written:?}");
    let logs = run(&gateway, &["sandbox", "logs", id]).await;
    let logs = String::from_utf8(logs.stdout).unwrap();
    assert!(logs.contains("hello"), "{logs}");
    gateway.finish().await;
}
