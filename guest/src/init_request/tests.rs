//! Init requests against a recording kernel.

use std::{
    cell::RefCell, collections::BTreeMap, os::unix::fs::PermissionsExt, rc::Rc, time::UNIX_EPOCH,
};

use guest_api::{Entropy, Hostname, MachineId, Token};
use tokio::task::LocalSet;

use super::*;
use crate::{Config, Kernel, Reap};

/// Records the calls of the agent.
#[derive(Debug, Clone)]
struct RecordingKernel {
    now: SystemTime,
    calls: Rc<RefCell<Vec<String>>>,
}

impl Kernel for RecordingKernel {
    fn now(&self) -> SystemTime {
        self.now
    }

    fn set_clock(&self, to: SystemTime) -> io::Result<()> {
        let millis = to.duration_since(UNIX_EPOCH).unwrap().as_millis();
        self.calls.borrow_mut().push(format!("clock {millis}"));
        Ok(())
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        self.calls
            .borrow_mut()
            .push(format!("entropy {}", bytes.len()));
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.calls.borrow_mut().push(format!("hostname {name}"));
        Ok(())
    }
}

/// An agent with a temporary root.
struct Fixture {
    root: tempfile::TempDir,
    state: Rc<AgentState>,
    calls: Rc<RefCell<Vec<String>>>,
}

impl Fixture {
    /// Creates an agent whose clock shows 100 s after the Unix epoch.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["etc", "run"] {
            fs::create_dir(root.path().join(dir)).unwrap();
        }
        let calls = Rc::default();
        let kernel = RecordingKernel {
            now: UNIX_EPOCH + Duration::from_secs(100),
            calls: Rc::clone(&calls),
        };
        let config = Config {
            root: root.path().to_path_buf(),
            default_user: "user".to_owned(),
            disk: None,
        };
        let state = AgentState::start(config, Box::new(kernel), Reap::Own).unwrap();
        Self { root, state, calls }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.path().join(path)).unwrap()
    }

    fn take_calls(&self) -> Vec<String> {
        self.calls.take()
    }

    fn hook(&self, name: &str, script: &str) {
        let dir = self.root.path().join(HookPoint::AfterFork.dir());
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn at(timestamp: &str) -> InitRequest {
    InitRequest {
        timestamp: Some(timestamp.to_owned()),
        ..InitRequest::default()
    }
}

fn sandbox(id: &str) -> InitRequest {
    InitRequest {
        sandbox_id: Some(id.to_owned()),
        ..InitRequest::default()
    }
}

#[tokio::test]
async fn empty_request_changes_nothing() {
    LocalSet::new()
        .run_until(async {
            let fixture = Fixture::new();
            apply(&fixture.state, InitRequest::default()).await.unwrap();
            assert!(fixture.take_calls().is_empty());
            assert_eq!(
                fs::read_dir(fixture.root.path().join("etc"))
                    .unwrap()
                    .count(),
                0
            );
            assert_eq!(
                fs::read_dir(fixture.root.path().join("run"))
                    .unwrap()
                    .count(),
                0
            );
        })
        .await;
}

#[tokio::test]
async fn init_applies_the_whole_identity() {
    LocalSet::new()
        .run_until(async {
            let fixture = Fixture::new();
            let request = InitRequest {
                env_vars: Some(BTreeMap::from([("A".to_owned(), "b".to_owned())])),
                access_token: Some(Token::new("t")),
                default_workdir: Some("/srv".to_owned()),
                entropy: Some(Entropy::new(vec![1; 64]).unwrap()),
                machine_id: Some(MachineId::from([0x11; 16])),
                hostname: Some(Hostname::try_from("i0".to_owned()).unwrap()),
                template_id: Some("base".to_owned()),
                ..sandbox("i0")
            };
            apply(&fixture.state, request).await.unwrap();
            assert_eq!(fixture.take_calls(), ["entropy 64", "hostname i0"]);
            assert_eq!(
                fixture.read("etc/machine-id"),
                format!("{}\n", "1".repeat(32))
            );
            assert_eq!(fixture.read("etc/hostname"), "i0\n");
            assert!(fixture.read("etc/hosts").ends_with("127.0.1.1\ti0\n"));
            assert_eq!(fixture.read("run/e2b/.E2B_SANDBOX"), "true");
            assert_eq!(fixture.read("run/e2b/.E2B_SANDBOX_ID"), "i0");
            assert_eq!(fixture.read("run/e2b/.E2B_TEMPLATE_ID"), "base");
            let env = fixture.state.environment(None);
            assert_eq!(
                (env["A"].as_str(), env["E2B_SANDBOX_ID"].as_str()),
                ("b", "i0")
            );
            assert_eq!(fixture.state.guest_config().token.expose(), "t");
            apply(&fixture.state, InitRequest::default()).await.unwrap();
            assert_eq!(
                fixture.state.guest_config().token.expose(),
                "t",
                "an absent token changes nothing"
            );
            let no_token = InitRequest {
                access_token: Some(Token::default()),
                ..InitRequest::default()
            };
            apply(&fixture.state, no_token).await.unwrap();
            assert_eq!(fixture.state.guest_config().token.expose(), "");
        })
        .await;
}

#[tokio::test]
async fn clock_follows_newer_deviating_timestamps() {
    LocalSet::new()
        .run_until(async {
            let fixture = Fixture::new();
            let apply_at = async |text| apply(&fixture.state, at(text)).await;
            apply_at("1970-01-01T00:01:36Z").await.unwrap(); // 4 s ahead
            apply_at("1970-01-01T00:01:40.05Z").await.unwrap(); // 50 ms behind
            assert!(fixture.take_calls().is_empty());
            apply_at("1970-01-01T00:01:40.051Z").await.unwrap();
            assert_eq!(fixture.take_calls(), ["clock 100051"]);
            apply_at("1970-01-01T01:00:00+01:00").await.unwrap(); // older than the last timestamp
            assert!(fixture.take_calls().is_empty());
            assert!(matches!(
                apply_at("yesterday").await,
                Err(InitError::Timestamp)
            ));

            let fixture = Fixture::new();
            apply(&fixture.state, at("1970-01-01T00:01:34.9Z"))
                .await
                .unwrap(); // 5.1 s ahead
            assert_eq!(fixture.take_calls(), ["clock 94900"]);
        })
        .await;
}

#[tokio::test]
async fn fork_hooks_run_in_order_before_init_returns() {
    LocalSet::new()
        .run_until(async {
            let fixture = Fixture::new();
            let log = fixture.root.path().join("log");
            let echo = |text: &str| format!("echo {text} $E2B_SANDBOX_ID >> {}", log.display());
            fixture.hook("20-second", &echo("second"));
            fixture.hook("10-first", &format!("{}; exit 3", echo("first")));
            fs::write(
                fixture
                    .root
                    .path()
                    .join(HookPoint::AfterFork.dir())
                    .join("15-not-executable"),
                "",
            )
            .unwrap();
            apply(&fixture.state, sandbox("a")).await.unwrap();
            assert_eq!(fixture.read("log"), "first a\nsecond a\n");
            apply(&fixture.state, sandbox("a")).await.unwrap();
            assert_eq!(
                fixture.read("log"),
                "first a\nsecond a\n",
                "hooks do not run again for the same sandbox"
            );
            apply(&fixture.state, sandbox("b")).await.unwrap();
            assert!(fixture.read("log").ends_with("first b\nsecond b\n"));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn hanging_hook_and_its_children_are_killed() {
    LocalSet::new()
        .run_until(async {
            let fixture = Fixture::new();
            // Paused time advances as soon as all tasks are idle, so the timeout expires at once.
            let start = tokio::time::Instant::now();
            fixture.hook("hang", "sleep 600 & sleep 600");
            apply(&fixture.state, sandbox("a")).await.unwrap();
            assert!(start.elapsed() >= HookPoint::AfterFork.timeout());
        })
        .await;
}
