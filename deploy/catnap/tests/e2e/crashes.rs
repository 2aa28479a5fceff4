//! Processes that die: the gateway, its monitors, and what is inside the guests.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::rig::{Gateway, PATIENCE, Reply, Sandbox, until};

#[tokio::test]
async fn paused_sandboxes_survive_the_end_of_everything() {
    let Some(mut gateway) = Gateway::start().await else {
        return;
    };
    let paused = gateway.probed(json!({})).await;
    paused.write(&gateway, "/home/user/kept", "kept\n").await;
    let before = paused.get(&gateway, "/count").await.ok();
    paused.pause(&gateway).await;
    let running = gateway.create(json!({})).await;
    let rerunning = gateway.create(json!({})).await;
    rerunning.pause(&gateway).await;
    rerunning.read(&gateway, "/etc/hostname").await.ok();

    let monitors = gateway.monitors();
    assert!(monitors.len() >= 2, "two machines run: {monitors:?}");
    gateway.signal(Signal::SIGKILL).await;
    for pid in &monitors {
        // Those that have seen their gateway go are gone.
        let _ = kill(*pid, Signal::SIGKILL);
    }
    gateway.up().await;

    assert_eq!(paused.state(&gateway).await, "paused");
    assert_eq!(
        rerunning.state(&gateway).await,
        "paused",
        "it has a snapshot to go back to"
    );
    assert_eq!(running.detail(&gateway).await.0, 404, "it had none");
    let after = paused.get(&gateway, "/count").await.ok();
    assert_eq!(after.value::<u64>("hits"), before.value::<u64>("hits") + 1);
    assert_eq!(after.value::<u64>("pid"), before.value::<u64>("pid"));
    assert_eq!(
        paused.read(&gateway, "/home/user/kept").await.ok().body,
        "kept\n"
    );
    let hostname = rerunning.read(&gateway, "/etc/hostname").await.ok().body;
    assert_eq!(hostname, format!("{}\n", rerunning.id));
    let now = gateway.monitors();
    assert!(
        monitors.iter().all(|old| !now.contains(old)),
        "{monitors:?} {now:?}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn no_monitor_outlives_a_killed_gateway_for_long() {
    let Some(mut gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let monitors = gateway.monitors();
    assert!(!monitors.is_empty());
    gateway.signal(Signal::SIGKILL).await;
    gateway.up().await;
    until("the monitors of before are gone", async || {
        let now = gateway.monitors();
        let left: Vec<_> = monitors.iter().filter(|old| now.contains(old)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    assert_eq!(sandbox.detail(&gateway).await.0, 404);
    gateway.finish().await;
}

#[tokio::test]
async fn a_monitor_killed_under_a_request_is_answered_for() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    let asleep = async {
        let request = sandbox.request(&gateway, Method::GET, Sandbox::PROBE, "/sleep/60000");
        let reply = request.send().await;
        reply.map(|reply| reply.status().as_u16())
    };
    let murder = async {
        // When the probe sleeps it answers nobody else; the request is under way when a second one waits behind it.
        until("the request is under way", async || {
            let late = timeout(Duration::from_secs(3), sandbox.try_get(&gateway, "/count")).await;
            if late.is_err() {
                Ok(())
            } else {
                Err("the probe still answers".to_owned())
            }
        })
        .await;
        kill(machine(&gateway), Signal::SIGKILL).unwrap();
        Instant::now()
    };
    let (status, killed) = tokio::join!(asleep, murder);
    assert!(
        killed.elapsed() < Duration::from_secs(20),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(status.unwrap(), 502);
    gone(&gateway, &sandbox).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_monitor_killed_after_a_snapshot_falls_back_to_it() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    sandbox.pause(&gateway).await;
    let hits = sandbox
        .get(&gateway, "/count")
        .await
        .ok()
        .value::<u64>("hits");
    kill(machine(&gateway), Signal::SIGKILL).unwrap();
    until("the end of the monitor is known", async || {
        let now = sandbox.state(&gateway).await;
        if now == "running" { Err(now) } else { Ok(()) }
    })
    .await;
    if sandbox.state(&gateway).await == "paused" {
        assert_eq!(
            sandbox
                .get(&gateway, "/count")
                .await
                .ok()
                .value::<u64>("hits"),
            hits,
            "it is as it was paused"
        );
    } else {
        gone(&gateway, &sandbox).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_guest_that_resets_itself_is_gone() {
    breaks(&["/home/user/probe", "reboot"], "reboot").await;
}

#[tokio::test]
async fn a_guest_whose_kernel_panics_is_gone() {
    breaks(&["/home/user/probe", "panic"], "panic").await;
}

/// Runs what ends a guest from inside, and sees that everybody notices.
async fn breaks(command: &[&str], what: &str) {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    sandbox.start(&gateway, "root", command).await;
    gone(&gateway, &sandbox).await;
    assert!(
        gateway.log().contains(&sandbox.id),
        "the end by {what} is logged"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn an_agent_that_answers_no_more_holds_nobody_for_ever() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let sandbox = gateway.probed(json!({})).await;
    sandbox
        .start(&gateway, "root", &["/home/user/probe", "seize"])
        .await;
    until("the agent is stopped", async || {
        let reply = timeout(
            Duration::from_secs(5),
            sandbox.read(&gateway, "/etc/hostname"),
        )
        .await;
        if reply.is_err() {
            Ok(())
        } else {
            Err("it still answers".to_owned())
        }
    })
    .await;
    let reply = timeout(PATIENCE, sandbox.get(&gateway, "/count"))
        .await
        .unwrap();
    assert!(
        (502..=504).contains(&reply.status),
        "{} {}",
        reply.status,
        reply.body
    );
    sandbox.kill(&gateway).await;
    gone(&gateway, &sandbox).await;
    gateway.finish().await;
}

/// The monitor of the only sandbox: the one that holds a disk's top layer open.
fn machine(gateway: &Gateway) -> nix::unistd::Pid {
    let sandboxes = gateway.work.data().join("sandboxes");
    let holds = |pid: &nix::unistd::Pid| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .any(|target| target.starts_with(&sandboxes))
    };
    let mut found: Vec<_> = gateway.monitors().into_iter().filter(holds).collect();
    assert_eq!(found.len(), 1, "one machine runs");
    found.remove(0)
}

/// The API no longer knows it, and a request says so in the words of the contract.
async fn gone(gateway: &Gateway, sandbox: &Sandbox) {
    sandbox.becomes(gateway, "").await;
    assert_eq!(sandbox.detail(gateway).await.0, 404);
    let reply: Reply = sandbox.get(gateway, "/").await;
    let body = format!(
        r#"{{"sandboxId":"{}","message":"The sandbox was not found","code":502}}"#,
        sandbox.id
    );
    assert_eq!((reply.status, reply.body), (502, body));
}
