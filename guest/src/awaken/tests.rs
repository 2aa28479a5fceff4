use std::{cell::RefCell, os::unix::fs::PermissionsExt, rc::Rc, time::UNIX_EPOCH};

use guest_api::{Entropy, Hostname, MachineId};
use tokio::task::LocalSet;

use super::*;
use crate::{Config, Reap};

/// A kernel that remembers what was asked of it.
#[derive(Debug, Clone)]
struct Recorder {
    now: SystemTime,
    asked: Rc<RefCell<Vec<String>>>,
}

impl Kernel for Recorder {
    fn now(&self) -> SystemTime {
        self.now
    }

    fn set_clock(&self, to: SystemTime) -> io::Result<()> {
        let millis = to.duration_since(UNIX_EPOCH).unwrap().as_millis();
        self.asked.borrow_mut().push(format!("clock {millis}"));
        Ok(())
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        self.asked
            .borrow_mut()
            .push(format!("entropy {}", bytes.len()));
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.asked.borrow_mut().push(format!("hostname {name}"));
        Ok(())
    }
}

/// An agent below a folder of its own.
struct Rig {
    root: tempfile::TempDir,
    agent: Rc<Agent>,
    asked: Rc<RefCell<Vec<String>>>,
}

impl Rig {
    /// The clock shows 100 s of 1970.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["etc", "run"] {
            fs::create_dir(root.path().join(dir)).unwrap();
        }
        let asked = Rc::default();
        let kernel = Recorder {
            now: UNIX_EPOCH + Duration::from_secs(100),
            asked: Rc::clone(&asked),
        };
        let config = Config {
            root: root.path().to_path_buf(),
            default_user: "user".to_owned(),
            disk: None,
        };
        let agent = Agent::start(config, Box::new(kernel), Reap::Own).unwrap();
        Self { root, agent, asked }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.path().join(path)).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }

    fn hook(&self, name: &str, script: &str) {
        let dir = self.root.path().join(Moment::AfterFork.dir());
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
async fn a_request_that_says_nothing_does_nothing() {
    LocalSet::new()
        .run_until(async {
            let rig = Rig::new();
            awaken(&rig.agent, InitRequest::default()).await.unwrap();
            assert!(rig.asked().is_empty());
            assert_eq!(
                fs::read_dir(rig.root.path().join("etc")).unwrap().count(),
                0
            );
            assert_eq!(
                fs::read_dir(rig.root.path().join("run")).unwrap().count(),
                0
            );
        })
        .await;
}

#[tokio::test]
async fn an_identity_is_taken_whole() {
    LocalSet::new()
        .run_until(async {
            let rig = Rig::new();
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
            awaken(&rig.agent, request).await.unwrap();
            assert_eq!(rig.asked(), ["entropy 64", "hostname i0"]);
            assert_eq!(rig.read("etc/machine-id"), format!("{}\n", "1".repeat(32)));
            assert_eq!(rig.read("etc/hostname"), "i0\n");
            assert!(rig.read("etc/hosts").ends_with("127.0.1.1\ti0\n"));
            assert_eq!(rig.read("run/e2b/.E2B_SANDBOX"), "true");
            assert_eq!(rig.read("run/e2b/.E2B_SANDBOX_ID"), "i0");
            assert_eq!(rig.read("run/e2b/.E2B_TEMPLATE_ID"), "base");
            let env = rig.agent.environment(None);
            assert_eq!(
                (env["A"].as_str(), env["E2B_SANDBOX_ID"].as_str()),
                ("b", "i0")
            );
            assert_eq!(rig.agent.told().token.expose(), "t");
            awaken(&rig.agent, InitRequest::default()).await.unwrap();
            assert_eq!(
                rig.agent.told().token.expose(),
                "t",
                "a token that is not named stays"
            );
            let open = InitRequest {
                access_token: Some(Token::default()),
                ..InitRequest::default()
            };
            awaken(&rig.agent, open).await.unwrap();
            assert_eq!(rig.agent.told().token.expose(), "");
        })
        .await;
}

#[tokio::test]
async fn the_clock_is_set_when_it_is_off_and_never_by_an_older_word() {
    LocalSet::new()
        .run_until(async {
            let rig = Rig::new();
            let tell = async |text| awaken(&rig.agent, at(text)).await;
            tell("1970-01-01T00:01:36Z").await.unwrap(); // 4 s ahead
            tell("1970-01-01T00:01:40.05Z").await.unwrap(); // 50 ms behind
            assert!(rig.asked().is_empty());
            tell("1970-01-01T00:01:40.051Z").await.unwrap();
            assert_eq!(rig.asked(), ["clock 100051"]);
            tell("1970-01-01T01:00:00+01:00").await.unwrap(); // older than the last word
            assert!(rig.asked().is_empty());
            assert!(matches!(
                tell("yesterday").await,
                Err(AwakenError::Timestamp)
            ));

            let rig = Rig::new();
            awaken(&rig.agent, at("1970-01-01T00:01:34.9Z"))
                .await
                .unwrap(); // 5.1 s ahead
            assert_eq!(rig.asked(), ["clock 94900"]);
        })
        .await;
}

#[tokio::test]
async fn hooks_run_in_order_once_a_fork_and_before_the_answer() {
    LocalSet::new()
        .run_until(async {
            let rig = Rig::new();
            let log = rig.root.path().join("log");
            let say = |text: &str| format!("echo {text} $E2B_SANDBOX_ID >> {}", log.display());
            rig.hook("20-second", &say("second"));
            rig.hook("10-first", &format!("{}; exit 3", say("first")));
            fs::write(
                rig.root
                    .path()
                    .join(Moment::AfterFork.dir())
                    .join("15-not-executable"),
                "",
            )
            .unwrap();
            awaken(&rig.agent, sandbox("a")).await.unwrap();
            assert_eq!(rig.read("log"), "first a\nsecond a\n");
            awaken(&rig.agent, sandbox("a")).await.unwrap();
            assert_eq!(
                rig.read("log"),
                "first a\nsecond a\n",
                "the same sandbox is no fork"
            );
            awaken(&rig.agent, sandbox("b")).await.unwrap();
            assert!(rig.read("log").ends_with("first b\nsecond b\n"));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_is_killed_with_what_it_started() {
    LocalSet::new()
        .run_until(async {
            let rig = Rig::new();
            // Paused time runs ahead as soon as all wait, so the limit is reached at once.
            let began = tokio::time::Instant::now();
            rig.hook("hang", "sleep 600 & sleep 600");
            awaken(&rig.agent, sandbox("a")).await.unwrap();
            assert!(began.elapsed() >= Moment::AfterFork.limit());
        })
        .await;
}
