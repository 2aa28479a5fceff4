//! Killed processes and crashed guests.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::rig::{Gateway, Sandbox, TIMEOUT, wait_until};

#[tokio::test]
async fn paused_sandboxes_survive_a_kill_of_every_process() {
    let Some(mut gateway) = Gateway::start().await else {
        return;
    };
    let paused = gateway.create_with_probe(json!({})).await;
    paused.write(&gateway, "/home/user/file", "text\n").await;
    let before = paused.get(&gateway, "/count").await.ok();
    paused.pause(&gateway).await;
    let never_paused = gateway.create(json!({})).await;
    let woken = gateway.create(json!({})).await;
    woken.pause(&gateway).await;
    woken.read(&gateway, "/etc/hostname").await.ok();

    let monitors = gateway.monitors();
    assert!(monitors.len() >= 2, "two machines run: {monitors:?}");
    gateway.stop_with(Signal::SIGKILL).await;
    for pid in &monitors {
        // Fails if the monitor has exited with its gateway.
        let _ = kill(*pid, Signal::SIGKILL);
    }
    gateway.start_process().await;

    assert_eq!(paused.state(&gateway).await, "paused");
    let state = woken.state(&gateway).await;
    assert_eq!(state, "paused", "it falls back to its snapshot");
    let (status, _) = never_paused.info(&gateway).await;
    assert_eq!(status, 404, "it has no snapshot");
    let after = paused.get(&gateway, "/count").await.ok();
    assert_eq!(after.value::<u64>("hits"), before.value::<u64>("hits") + 1);
    assert_eq!(after.value::<u64>("pid"), before.value::<u64>("pid"));
    let file = paused.read(&gateway, "/home/user/file").await.ok().body;
    assert_eq!(file, "text\n");
    let hostname = woken.read(&gateway, "/etc/hostname").await.ok().body;
    assert_eq!(hostname, format!("{}\n", woken.id));
    let now = gateway.monitors();
    assert!(
        monitors.iter().all(|old| !now.contains(old)),
        "{monitors:?} {now:?}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn monitors_exit_after_their_gateway_is_killed() {
    let Some(mut gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let monitors = gateway.monitors();
    assert!(!monitors.is_empty());
    gateway.stop_with(Signal::SIGKILL).await;
    gateway.start_process().await;
    wait_until("the monitors of the killed gateway exit", async || {
        let now = gateway.monitors();
        let left: Vec<_> = monitors.iter().filter(|old| now.contains(old)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    assert_eq!(sandbox.info(&gateway).await.0, 404);
    gateway.finish().await;
}

#[tokio::test]
async fn monitor_killed_during_a_request_is_502() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    let request = async {
        let request = sandbox.request(&gateway, Method::GET, Sandbox::PROBE_PORT, "/sleep/60000");
        let response = request.send().await;
        response.map(|response| response.status().as_u16())
    };
    let kill_monitor = async {
        // The probe serves one request at a time: the first one is in progress once a second one blocks.
        wait_until("the request is in progress", async || {
            let second = sandbox.try_get(&gateway, "/count");
            if timeout(Duration::from_secs(3), second).await.is_err() {
                Ok(())
            } else {
                Err("the probe responds".to_owned())
            }
        })
        .await;
        kill(only_machine(&gateway), Signal::SIGKILL).unwrap();
        Instant::now()
    };
    let (status, killed_at) = tokio::join!(request, kill_monitor);
    let elapsed = killed_at.elapsed();
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert_eq!(status.unwrap(), 502);
    assert_gone(&gateway, &sandbox).await;
    gateway.finish().await;
}

#[tokio::test]
async fn monitor_killed_after_a_pause_falls_back_to_snapshot() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    sandbox.pause(&gateway).await;
    let first = sandbox.get(&gateway, "/count").await.ok();
    kill(only_machine(&gateway), Signal::SIGKILL).unwrap();
    sandbox.wait_for_state(&gateway, "paused").await;
    let again = sandbox.get(&gateway, "/count").await.ok();
    assert_eq!(again.value::<u64>("hits"), first.value::<u64>("hits"));
    gateway.finish().await;
}

#[tokio::test]
async fn guest_reset_removes_the_sandbox() {
    crash_guest("reboot").await;
}

#[tokio::test]
async fn guest_kernel_panic_removes_the_sandbox() {
    crash_guest("panic").await;
}

/// Crashes a guest with a command of the probe, and asserts that its sandbox is gone and the crash is logged.
async fn crash_guest(command: &str) {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    sandbox
        .start(&gateway, "root", &["/home/user/probe", command])
        .await;
    assert_gone(&gateway, &sandbox).await;
    let log = gateway.log();
    assert!(log.contains(&sandbox.id), "the log names the sandbox");
    gateway.finish().await;
}

#[tokio::test]
async fn stopped_agent_is_gateway_error_and_killable() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create_with_probe(json!({})).await;
    sandbox
        .start(&gateway, "root", &["/home/user/probe", "stop-init"])
        .await;
    wait_until("the agent stops", async || {
        let request = sandbox.read(&gateway, "/etc/hostname");
        if timeout(Duration::from_secs(5), request).await.is_err() {
            Ok(())
        } else {
            Err("the agent responds".to_owned())
        }
    })
    .await;
    let reply = timeout(TIMEOUT, sandbox.get(&gateway, "/count"))
        .await
        .unwrap();
    assert!((502..=504).contains(&reply.status), "{reply:?}");
    sandbox.kill(&gateway).await;
    assert_gone(&gateway, &sandbox).await;
    gateway.finish().await;
}

/// Returns the monitor of the only running sandbox: it has the top layer of a disk open.
fn only_machine(gateway: &Gateway) -> Pid {
    let sandboxes = gateway.work.data().join("sandboxes");
    let has_sandbox = |pid: &Pid| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .any(|target| target.starts_with(&sandboxes))
    };
    let mut machines: Vec<_> = gateway.monitors().into_iter().filter(has_sandbox).collect();
    assert_eq!(machines.len(), 1, "one machine runs");
    machines.remove(0)
}

/// Waits until the API does not know the sandbox, and asserts that requests to it are 502.
async fn assert_gone(gateway: &Gateway, sandbox: &Sandbox) {
    sandbox.wait_for_state(gateway, "").await;
    assert_eq!(sandbox.info(gateway).await.0, 404);
    let reply = sandbox.get(gateway, "/").await;
    let body = format!(
        r#"{{"sandboxId":"{}","message":"The sandbox was not found","code":502}}"#,
        sandbox.id
    );
    assert_eq!((reply.status, reply.body), (502, body));
}
