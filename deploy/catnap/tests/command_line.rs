//! The real binary against a whole gateway around a fake host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, path::PathBuf, process::Output};

use pool_api::{Node, Secret, fake::FakeNode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, sync::oneshot, task::JoinHandle};

const KEY: &str = "e2b_0000000000000000000000000000000000000000";

struct Gateway {
    fake: FakeNode,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    run: JoinHandle<anyhow::Result<()>>,
    dir: TempDir,
}

impl Gateway {
    async fn new() -> Self {
        let (fake, dir) = (
            FakeNode::with_templates(&["base"]),
            tempfile::tempdir().unwrap(),
        );
        let config = catnap::Config::new(
            "127.0.0.1:0".parse().unwrap(),
            PathBuf::from(dir.path()),
            Secret::new(KEY),
        );
        let ((stop, stopped), (ready, listens)) = (oneshot::channel::<()>(), oneshot::channel());
        let node = std::sync::Arc::new(fake.clone());
        let until = async move { drop(stopped.await) };
        let run = tokio::spawn(catnap::run(config, node, until, Some(ready)));
        Self {
            fake,
            address: listens.await.unwrap().plain,
            stop,
            run,
            dir,
        }
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = catnap(args);
        command
            .env("CATNAP_URL", format!("http://{}", self.address))
            .env("E2B_API_KEY", KEY);
        command.output().await.unwrap()
    }

    /// What a command that must succeed prints.
    async fn text(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code and the complaint of a command that must fail.
    async fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args).await;
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

fn catnap(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catnap"));
    for name in [
        "CATNAP_URL",
        "CATNAP_API_KEY",
        "E2B_API_KEY",
        "CATNAP_DATA_DIR",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.args(args).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_sandbox_from_the_command_line() {
    let gateway = Gateway::new().await;
    let id = gateway
        .text(&[
            "sandbox",
            "create",
            "base",
            "--auto-resume",
            "--metadata",
            "k=v",
        ])
        .await;
    let id = id.trim();
    let info = gateway.text(&["sandbox", "info", id]).await;
    assert!(
        info.contains("running") && !info.contains("Token"),
        "{info}"
    );
    let json: Value =
        serde_json::from_str(&gateway.text(&["sandbox", "info", id, "--json"]).await).unwrap();
    assert_eq!(json["metadata"]["k"], "v");
    let list = gateway.text(&["sandbox", "ls"]).await;
    assert!(list.contains("SANDBOX") && list.contains(id), "{list}");

    gateway.text(&["sandbox", "pause", id]).await;
    assert_eq!(gateway.fails(&["sandbox", "pause", id]).await.0, 6);
    assert_eq!(gateway.text(&["sandbox", "resume", id]).await.trim(), id);
    let forks = gateway.text(&["sandbox", "fork", id, "-n", "3"]).await;
    assert_eq!(forks.lines().count(), 3);
    assert!(
        gateway
            .text(&["sandbox", "logs", id])
            .await
            .ends_with(&format!("{id} is ready\n"))
    );
    let ids: Vec<&str> = ["sandbox", "kill", id]
        .into_iter()
        .chain(forks.lines())
        .collect();
    gateway.text(&ids).await;
    assert!(gateway.fake.list().await.is_empty());
    let (code, complaint) = gateway.fails(&["sandbox", "info", id]).await;
    assert_eq!(code, 4);
    assert!(complaint.contains("doesn't exist"), "{complaint}");

    assert_eq!(
        gateway.text(&["template", "build", "mine"]).await.trim(),
        "mine"
    );
    assert!(gateway.text(&["template", "ls"]).await.contains("mine"));
    gateway.stop.send(()).unwrap();
    gateway.run.await.unwrap().unwrap();
    drop(gateway.dir);
}

#[tokio::test]
async fn a_command_s_output_and_code_come_through() {
    let gateway = Gateway::new().await;
    let id = gateway.text(&["sandbox", "create", "--auto-resume"]).await;
    gateway.text(&["sandbox", "pause", id.trim()]).await;
    // It sleeps, and the command's own request wakes it.
    let output = gateway
        .run(&[
            "sandbox",
            "exec",
            id.trim(),
            "--env",
            "A=b",
            "--",
            "printf",
            "-n",
            "x",
        ])
        .await;
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(3), b"done".as_slice())
    );
    let asked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&asked["process"]["cmd"], &asked["process"]["args"][1]),
        (&"printf".into(), &"x".into())
    );
    assert_eq!(
        (&asked["process"]["envs"]["A"], &asked["stdin"]),
        (&"b".into(), &false.into())
    );
    assert_eq!(gateway.fake.wakes(), 1);

    let id = gateway.text(&["sandbox", "create"]).await;
    gateway.text(&["sandbox", "pause", id.trim()]).await;
    let (code, complaint) = gateway
        .fails(&["sandbox", "exec", id.trim(), "--", "true"])
        .await;
    assert_eq!(code, 6);
    assert!(complaint.contains("catnap sandbox resume"), "{complaint}");
}

#[tokio::test]
async fn failures_have_their_exit_codes() {
    let gateway = Gateway::new().await;
    assert_eq!(gateway.fails(&["sandbox", "info", "iunknown"]).await.0, 4);
    assert_eq!(gateway.fails(&["sandbox", "create", "nope"]).await.0, 4);
    assert_eq!(
        gateway
            .fails(&["sandbox", "create", "--timeout", "0"])
            .await
            .0,
        2
    );
    assert_eq!(gateway.fails(&["sandbox", "frobnicate"]).await.0, 2);
    assert_eq!(
        gateway
            .fails(&["sandbox", "ls", "--api-key", "e2b_1"])
            .await
            .0,
        5
    );
    let (code, complaint) = gateway
        .fails(&["sandbox", "ls", "--url", "http://127.0.0.1:1"])
        .await;
    assert_eq!(code, 7, "{complaint}");
    assert!(
        complaint.starts_with("catnap: list sandboxes: reach the gateway at http://127.0.0.1:1"),
        "{complaint}"
    );
}

#[tokio::test]
async fn snapshots_from_the_command_line() {
    let gateway = Gateway::new().await;
    let id = gateway.text(&["sandbox", "create"]).await;
    let id = id.trim();
    let taken = gateway.text(&["sandbox", "snapshot", id]).await;
    let named = gateway
        .text(&["sandbox", "snapshot", id, "--name", "Kept"])
        .await;
    assert_eq!(named.trim(), "catnap/kept:default");
    let listed = gateway.text(&["snapshot", "ls", "--sandbox", id]).await;
    let listed: Vec<&str> = listed.lines().collect();
    assert_eq!(
        listed,
        ["SNAPSHOT", named.trim(), taken.trim()].map(|line| format!(" {line}"))
    );
    gateway
        .text(&["sandbox", "rollback", id, named.trim()])
        .await;
    let other = gateway.text(&["sandbox", "create", "kept"]).await;
    let back = gateway
        .fails(&["sandbox", "rollback", other.trim(), "kept"])
        .await;
    assert_eq!(back.0, 4, "{}", back.1);

    let used = gateway.text(&["sandbox", "metrics", id]).await;
    assert!(used.contains("MEMORY MB") && used.contains("128"), "{used}");
    gateway.text(&["sandbox", "pause", id, "--no-memory"]).await;
    let info = gateway.text(&["sandbox", "info", id, "--json"]).await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["pauseMode"], "filesystem");
    gateway.text(&["sandbox", "resume", id]).await;

    let both = [taken.trim(), named.trim(), "odd/one"];
    let (code, complaint) = gateway
        .fails(&["snapshot", "rm", both[0], both[1], both[2]])
        .await;
    assert_eq!(code, 4, "{complaint}");
    assert!(complaint.contains("delete odd/one"), "{complaint}");
    let none = gateway.text(&["snapshot", "ls", "--json"]).await;
    assert_eq!(none.trim(), "[]", "the others are gone");
}

#[tokio::test]
async fn a_port_in_use_is_one_sentence() {
    let gateway = Gateway::new().await;
    let dir = tempfile::tempdir().unwrap();
    let config = catnap::Config::new(gateway.address, PathBuf::from(dir.path()), Secret::new(KEY));
    let node = std::sync::Arc::new(FakeNode::default());
    let error = catnap::run(config, node, std::future::pending(), None)
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").starts_with(&format!("failed to listen on {}: ", gateway.address)),
        "{error:#}"
    );
    assert!(format!("{error:#}").ends_with("choose another address"));
    assert!(
        !dir.path().join("control.db").exists(),
        "nothing was touched"
    );
}
