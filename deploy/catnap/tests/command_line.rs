//! The `catnap` program against a gateway around a fake host: commands, output, exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, path::PathBuf, process::Output, sync::Arc};

use pool_api::{Epoch, Node, Origin, SandboxSpec, Secret, SnapshotScope, fake::FakeNode};
use serde_json::{Value, json};
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
        Self::over(FakeNode::with_templates(&["base"])).await
    }

    async fn over(fake: FakeNode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = catnap::Config::new(
            "127.0.0.1:0".parse().unwrap(),
            PathBuf::from(dir.path()),
            Secret::new(KEY),
        );
        let ((stop, stopped), (ready, addresses)) = (oneshot::channel::<()>(), oneshot::channel());
        let node = Arc::new(fake.clone());
        let shutdown = async move { drop(stopped.await) };
        let run = tokio::spawn(catnap::run(config, node, shutdown, Some(ready)));
        Self {
            fake,
            address: addresses.await.unwrap().plain,
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

    /// Runs a command that must succeed, and returns its output.
    async fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    async fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_str(&self.stdout(&args).await).unwrap()
    }

    /// Runs a command that must fail with a one-line error, and returns its exit code and the error.
    async fn fail(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.starts_with("catnap: ") && error.lines().count() == 1,
            "{args:?}: {error}"
        );
        (output.status.code().unwrap(), error)
    }

    async fn exit_code(&self, args: &[&str]) -> i32 {
        self.fail(args).await.0
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.run.await.unwrap().unwrap();
        drop(self.dir);
    }
}

/// Builds a command without the environment variables that `catnap` reads.
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
async fn sandbox_commands_cover_the_lifecycle() {
    let gateway = Gateway::new().await;
    let create = ["sandbox", "create", "base", "--metadata", "k=v"];
    let id = gateway.stdout(&create).await;
    let id = id.trim();
    let info = gateway.stdout(&["sandbox", "info", id]).await;
    assert!(
        info.contains("running") && !info.contains("Token"),
        "{info}"
    );
    let info = gateway.json(&["sandbox", "info", id]).await;
    assert_eq!(info["metadata"]["k"], "v");
    let list = gateway.stdout(&["sandbox", "ls"]).await;
    assert!(list.contains("SANDBOX") && list.contains(id), "{list}");
    let list = gateway.json(&["sandbox", "ls"]).await;
    assert_eq!(list[0]["sandboxID"], id);

    gateway.stdout(&["sandbox", "pause", id]).await;
    let info = gateway.json(&["sandbox", "info", id]).await;
    assert_eq!(info["state"], "paused");
    let running = gateway.json(&["sandbox", "ls", "--state", "running"]).await;
    assert_eq!(running, json!([]));
    assert_eq!(gateway.exit_code(&["sandbox", "pause", id]).await, 6);
    assert_eq!(gateway.exit_code(&["sandbox", "fork", id]).await, 6);
    assert_eq!(gateway.stdout(&["sandbox", "resume", id]).await.trim(), id);

    let forks = gateway.stdout(&["sandbox", "fork", id, "-n", "3"]).await;
    assert_eq!(forks.lines().count(), 3);
    let ids: Vec<&str> = ["sandbox", "kill", id]
        .into_iter()
        .chain(forks.lines())
        .collect();
    gateway.stdout(&ids).await;
    assert!(gateway.fake.list().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn logs_print_the_last_console_lines() {
    let gateway = Gateway::new().await;
    let id = gateway.stdout(&["sandbox", "create"]).await;
    let id = id.trim();
    let logs = gateway.stdout(&["sandbox", "logs", id]).await;
    assert!(logs.ends_with(&format!("{id} is ready\n")), "{logs}");
    let logs = gateway.json(&["sandbox", "logs", id, "--limit", "1"]).await;
    assert_eq!(logs["logs"].as_array().unwrap().len(), 1, "{logs}");
    gateway.stop().await;
}

#[tokio::test]
async fn metrics_print_usage_in_mebibytes() {
    let gateway = Gateway::new().await;
    let id = gateway.stdout(&["sandbox", "create"]).await;
    let metrics = gateway.stdout(&["sandbox", "metrics", id.trim()]).await;
    assert!(
        metrics.contains("MEMORY MB") && metrics.contains("128"),
        "{metrics}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn built_template_is_listed() {
    let gateway = Gateway::new().await;
    let built = gateway.stdout(&["template", "build", "base"]).await;
    assert_eq!(built.trim(), "base");
    let list = gateway.stdout(&["template", "ls"]).await;
    assert!(list.contains("TEMPLATE") && list.contains("base"), "{list}");
    gateway.stop().await;
}

#[tokio::test]
async fn exec_forwards_output_and_exit_code() {
    let gateway = Gateway::new().await;
    let id = gateway
        .stdout(&["sandbox", "create", "--auto-resume"])
        .await;
    let id = id.trim();
    gateway.stdout(&["sandbox", "pause", id]).await;
    // The request of the command wakes the sandbox.
    let exec = ["sandbox", "exec", id, "--env", "A=b", "--cwd", "/tmp"];
    let command = ["--", "printf", "-n", "x"];
    let output = gateway.run(&[&exec[..], &command].concat()).await;
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(3), b"done".as_slice())
    );
    // The fake process prints its request.
    let request: Value = serde_json::from_slice(&output.stdout).unwrap();
    let process =
        json!({ "cmd": "printf", "args": ["-n", "x"], "envs": { "A": "b" }, "cwd": "/tmp" });
    assert_eq!(request, json!({ "process": process, "stdin": false }));
    assert_eq!(gateway.fake.wakes(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn exec_in_unwakeable_sandbox_names_the_remedy() {
    let gateway = Gateway::new().await;
    let id = gateway.stdout(&["sandbox", "create"]).await;
    let id = id.trim();
    gateway.stdout(&["sandbox", "pause", id]).await;
    let (code, error) = gateway.fail(&["sandbox", "exec", id, "--", "true"]).await;
    assert_eq!(code, 6);
    let remedy = format!("catnap sandbox resume {id}");
    assert!(error.contains(&remedy), "{error}");
    assert_eq!(gateway.fake.wakes(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn errors_map_to_exit_codes() {
    let gateway = Gateway::new().await;
    for command in ["info", "pause", "resume", "fork", "logs", "metrics", "kill"] {
        let (code, error) = gateway.fail(&["sandbox", command, "iunknown"]).await;
        assert_eq!(code, 4, "{command}: {error}");
        assert!(error.contains("iunknown"), "{command}: {error}");
    }
    let exec = ["sandbox", "exec", "iunknown", "--", "true"];
    assert_eq!(gateway.exit_code(&exec).await, 4);
    assert_eq!(gateway.exit_code(&["sandbox", "create", "nope"]).await, 4);
    let zero = ["sandbox", "create", "--timeout", "0"];
    assert_eq!(gateway.exit_code(&zero).await, 2);
    let usage = gateway.run(&["sandbox", "frobnicate"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let wrong_key = ["sandbox", "ls", "--api-key", "e2b_1"];
    assert_eq!(gateway.exit_code(&wrong_key).await, 5);
    let unreachable = ["sandbox", "ls", "--url", "http://127.0.0.1:1"];
    let (code, error) = gateway.fail(&unreachable).await;
    assert_eq!(code, 7, "{error}");
    let context =
        "catnap: failed to list sandboxes: failed to reach the gateway at http://127.0.0.1:1 ";
    assert!(error.starts_with(context), "{error}");
    gateway.stop().await;
}

#[tokio::test]
async fn snapshot_commands_create_list_and_roll_back() {
    let gateway = Gateway::new().await;
    let id = gateway.stdout(&["sandbox", "create"]).await;
    let id = id.trim();
    let unnamed = gateway.stdout(&["sandbox", "snapshot", id]).await;
    let named = gateway
        .stdout(&["sandbox", "snapshot", id, "--name", "Kept"])
        .await;
    assert_eq!(named.trim(), "catnap/kept:default");
    let list = gateway.stdout(&["snapshot", "ls", "--sandbox", id]).await;
    let list: Vec<&str> = list.lines().collect();
    assert_eq!(
        list,
        ["SNAPSHOT", named.trim(), unnamed.trim()].map(|line| format!(" {line}"))
    );
    gateway
        .stdout(&["sandbox", "rollback", id, named.trim()])
        .await;
    let other = gateway.stdout(&["sandbox", "create", "kept"]).await;
    let foreign = ["sandbox", "rollback", other.trim(), "kept"];
    assert_eq!(gateway.exit_code(&foreign).await, 4);
    gateway.stop().await;
}

#[tokio::test]
async fn snapshot_rm_deletes_the_rest_after_a_failure() {
    let gateway = Gateway::new().await;
    let id = gateway.stdout(&["sandbox", "create"]).await;
    let snapshot = ["sandbox", "snapshot", id.trim()];
    let first = gateway.stdout(&snapshot).await;
    let second = gateway.stdout(&snapshot).await;
    let (code, error) = gateway
        .fail(&["snapshot", "rm", first.trim(), "odd/one", second.trim()])
        .await;
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("failed to delete odd/one"), "{error}");
    assert_eq!(gateway.json(&["snapshot", "ls"]).await, json!([]));
    gateway.stop().await;
}

#[tokio::test]
async fn no_memory_pauses_with_the_disk_only() {
    let gateway = Gateway::new().await;
    let id = gateway.stdout(&["sandbox", "create"]).await;
    let id = id.trim();
    gateway
        .stdout(&["sandbox", "pause", id, "--no-memory"])
        .await;
    let info = gateway.json(&["sandbox", "info", id]).await;
    assert_eq!(info["pauseMode"], "filesystem");
    let resumed = gateway.json(&["sandbox", "resume", id]).await;
    assert_eq!(resumed["sandboxID"], id);
    gateway.stop().await;
}

#[tokio::test]
async fn unknown_sandbox_is_listed_and_taken_back() {
    let fake = FakeNode::with_templates(&["base"]);
    let spec = SandboxSpec {
        id: "iabc".parse().unwrap(),
        epoch: Epoch(1),
        origin: Origin::Template("base".parse().unwrap()),
        template: "base".parse().unwrap(),
        idle: None,
        env: std::collections::BTreeMap::new(),
        access_token: None,
    };
    let info = fake.create(spec).await.unwrap();
    let paused = fake.pause(&info.id, info.epoch, SnapshotScope::Full).await;
    paused.unwrap();
    // The ledger is new.
    let gateway = Gateway::over(fake).await;
    assert!(!gateway.stdout(&["sandbox", "ls"]).await.contains("iabc"));
    let listed = gateway.stdout(&["sandbox", "ls", "--quarantined"]).await;
    assert!(
        listed.contains("iabc") && listed.contains("sandbox"),
        "{listed}"
    );
    assert_eq!(gateway.stdout(&["ledger", "rebuild"]).await.trim(), "iabc");
    assert!(gateway.stdout(&["sandbox", "ls"]).await.contains("paused"));
    let discard = gateway.run(&["ledger", "discard", "iabc"]).await;
    assert_eq!(discard.status.code(), Some(4), "it is not in quarantine");
    gateway.stop().await;
}
