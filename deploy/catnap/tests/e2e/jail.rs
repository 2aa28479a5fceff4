//! Privileges of the gateway and of its monitors, as the host's `/proc` shows them.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use serde_json::json;

use crate::rig::{Gateway, wait_until};

/// Namespaces that a monitor shares with no other process.
const OWN_NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
/// Capabilities that the gateway drops: modules, I/O ports, reboot, device nodes, raw packets, BPF.
const DROPPED: [u32; 6] = [16, 17, 22, 27, 13, 39];

#[tokio::test]
async fn monitors_are_jailed_and_gateway_is_confined() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let (a, b) = tokio::join!(gateway.create(json!({})), gateway.create(json!({})));
    let own = std::process::id().to_string();
    let monitors = wait_until("two machines and two blanks", async || {
        let monitors = gateway.monitors();
        (monitors.len() >= 4)
            .then_some(monitors.clone())
            .ok_or(format!("{monitors:?} {} {}", a.id, b.id))
    })
    .await;
    let mut users = HashSet::new();
    for pid in &monitors {
        let proc = Path::new("/proc").join(pid.to_string());
        for namespace in OWN_NAMESPACES {
            let link = |process: &Path| fs::read_link(process.join("ns").join(namespace)).unwrap();
            assert_ne!(
                link(&proc),
                link(&Path::new("/proc").join(&own)),
                "{namespace}"
            );
        }
        assert_eq!(fs::read_dir(proc.join("root")).unwrap().count(), 0);
        let adjustment = fs::read_to_string(proc.join("oom_score_adj")).unwrap();
        assert_eq!(adjustment.trim(), "500");
        assert_eq!(fs::read(proc.join("environ")).unwrap(), b"");
        let groups = fs::read_to_string(proc.join("cgroup")).unwrap();
        assert!(groups.contains("/catnap-"), "{groups}");
        for task in tasks(&proc) {
            assert_eq!(task.field("CapEff"), "0000000000000000");
            assert_eq!(task.field("CapBnd"), "0000000000000000");
            assert_eq!(task.field("NoNewPrivs"), "1");
            assert_eq!(task.field("Seccomp"), "2", "{}", task.0);
            assert_eq!(task.field("Groups"), "");
        }
        let main = Status::read(&proc.join("status"));
        assert_eq!(main.field("NSpid").split('\t').next_back(), Some("1"));
        let user: u32 = main
            .field("Uid")
            .split('\t')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(user >= 1_900_000_000 && users.insert(user), "{user}");
    }
    assert_confined(gateway.pid());
    let pid = gateway.pid();
    gateway.finish().await;
    let left = control_groups_of(pid);
    assert!(left.is_empty(), "{left:?}");
}

/// Asserts that no thread of the gateway has more than it keeps.
fn assert_confined(gateway: Pid) {
    for task in tasks(&Path::new("/proc").join(gateway.to_string())) {
        let held = u64::from_str_radix(task.field("CapEff"), 16).unwrap();
        for capability in DROPPED {
            assert_eq!(held >> capability & 1, 0, "capability {capability}");
        }
        assert_eq!(task.field("CapBnd"), task.field("CapEff"));
        assert_eq!(task.field("NoNewPrivs"), "1");
        assert_eq!(task.field("Seccomp"), "2");
    }
}

#[tokio::test]
async fn no_jail_is_announced_and_runs_guests() {
    let Some(gateway) = Gateway::start_with(&["--no-jail"]).await else {
        return;
    };
    let sandbox = gateway.create(json!({})).await;
    let ran = sandbox.run(&gateway, "root", &["/bin/true"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let log = gateway.log();
    assert!(log.contains("WARN") && log.contains("--no-jail"), "{log}");
    for pid in gateway.monitors() {
        let status = Status::read(&Path::new("/proc").join(pid.to_string()).join("status"));
        assert_eq!(status.field("Uid").split('\t').next(), Some("0"));
        // The gateway's filter is inherited.
        assert_eq!(status.field("Seccomp_filters"), "1");
    }
    gateway.finish().await;
}

/// A `/proc/PID/status` file.
struct Status(String);

impl Status {
    fn read(path: &Path) -> Self {
        Self(fs::read_to_string(path).unwrap())
    }

    fn field(&self, name: &str) -> &str {
        let value = self.0.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then_some(value.trim())
        });
        value.unwrap_or_else(|| panic!("{name} is missing in {}", self.0))
    }
}

/// Returns the status of each thread that still exists.
fn tasks(proc: &Path) -> Vec<Status> {
    fs::read_dir(proc.join("task"))
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .map(Status)
        .collect()
}

/// Returns the control groups that a gateway left.
fn control_groups_of(gateway: Pid) -> Vec<PathBuf> {
    let name = format!("catnap-{gateway}-");
    let mut left = Vec::new();
    let mut unread = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = unread.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                left.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                unread.push(entry.path());
            }
        }
    }
    left
}
