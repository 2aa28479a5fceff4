//! The command line, on a real guest.

use std::process::Output;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::rig::{Gateway, PATIENCE};

async fn run(gateway: &Gateway, args: &[&str]) -> Output {
    timeout(PATIENCE, gateway.catnap(args).output())
        .await
        .unwrap()
        .unwrap()
}

/// What a command that must succeed prints.
async fn text(gateway: &Gateway, args: &[&str]) -> String {
    let output = run(gateway, args).await;
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn json_of(gateway: &Gateway, args: &[&str]) -> Value {
    serde_json::from_str(&text(gateway, args).await).unwrap()
}

/// The exit code of a command that fails with a complaint.
async fn fails(gateway: &Gateway, args: &[&str]) -> i32 {
    let output = run(gateway, args).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("catnap: ") && said.lines().count() == 1,
        "{args:?}: {said}"
    );
    output.status.code().unwrap()
}

#[tokio::test]
async fn a_sandbox_s_life_from_the_command_line() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let id = text(
        &gateway,
        &["sandbox", "create", "--metadata", "k=v", "--auto-resume"],
    )
    .await;
    let id = id.trim();
    let info = json_of(&gateway, &["sandbox", "info", id, "--json"]).await;
    assert_eq!(
        (&info["state"], &info["metadata"]["k"]),
        (&json!("running"), &json!("v"))
    );
    let list = json_of(&gateway, &["sandbox", "ls", "--json"]).await;
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert!(text(&gateway, &["sandbox", "ls"]).await.contains(id));

    text(&gateway, &["sandbox", "pause", id]).await;
    assert_eq!(
        json_of(&gateway, &["sandbox", "info", id, "--json"]).await["state"],
        "paused"
    );
    assert_eq!(fails(&gateway, &["sandbox", "pause", id]).await, 6);
    assert_eq!(fails(&gateway, &["sandbox", "fork", id]).await, 6);
    let resumed = json_of(&gateway, &["sandbox", "resume", id, "--json"]).await;
    assert_eq!(resumed["sandboxID"], id);

    let forks = text(&gateway, &["sandbox", "fork", id, "-n", "2"]).await;
    let forks: Vec<&str> = forks.lines().collect();
    assert_eq!(forks.len(), 2);
    let named = text(
        &gateway,
        &[
            "sandbox",
            "exec",
            forks[0],
            "--",
            "/bin/cat",
            "/etc/hostname",
        ],
    )
    .await;
    assert_eq!(named.trim(), forks[0]);

    text(&gateway, &["sandbox", "kill", id, forks[0], forks[1]]).await;
    assert_eq!(
        json_of(&gateway, &["sandbox", "ls", "--json"]).await,
        json!([])
    );
    for command in ["info", "pause", "resume", "logs", "kill"] {
        assert_eq!(
            fails(&gateway, &["sandbox", command, id]).await,
            4,
            "{command}"
        );
    }
    assert_eq!(
        fails(&gateway, &["sandbox", "exec", id, "--", "/bin/true"]).await,
        4
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_command_s_output_code_and_signal_come_through() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    sandbox.put_probe(&gateway).await;
    let exec = |command: &[&'static str]| {
        let args = ["sandbox", "exec", &sandbox.id, "--"].map(str::to_owned);
        args.into_iter()
            .chain(command.iter().map(ToString::to_string))
            .collect::<Vec<_>>()
    };
    let output = run(&gateway, &borrowed(&exec(&["/home/user/probe", "both"]))).await;
    let said = (
        output.stdout.as_slice(),
        output.stderr.as_slice(),
        output.status.code(),
    );
    assert_eq!(
        said,
        (
            b"to stdout\n".as_slice(),
            b"to stderr\n".as_slice(),
            Some(7)
        )
    );

    // It sleeps, and the command wakes it; the shell ends itself by a signal.
    sandbox.pause(&gateway).await;
    let output = run(
        &gateway,
        &borrowed(&exec(&["/bin/sh", "-c", "kill -TERM $$"])),
    )
    .await;
    assert_eq!(
        output.status.code(),
        Some(128 + 15),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let at = [
        "sandbox",
        "exec",
        &sandbox.id,
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        "--",
        "/bin/sh",
        "-c",
        "pwd; echo $A; id -un",
    ];
    assert_eq!(text(&gateway, &at).await, "/tmp\nb\nuser\n");
    let missing = run(&gateway, &borrowed(&exec(&["/no/such/program"]))).await;
    assert_ne!(missing.status.code(), Some(0));
    assert!(!missing.stderr.is_empty());
    gateway.finish().await;
}

#[tokio::test]
async fn the_console_can_be_read() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let said = sandbox
        .run(
            &gateway,
            "root",
            &[
                "/bin/sh",
                "-c",
                "echo hello from the console > /dev/console",
            ],
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        text(&gateway, &["sandbox", "logs", &sandbox.id])
            .await
            .contains("hello from the console")
    );
    let logs = json_of(
        &gateway,
        &["sandbox", "logs", &sandbox.id, "--json", "--limit", "1"],
    )
    .await;
    assert_eq!(logs["logs"].as_array().unwrap().len(), 1, "{logs}");
    gateway.finish().await;
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
