//! Freezing a disk, on a real file system of its own.

use std::{path::Path, process::Command, time::Duration};

use guest::Peer;
use guest_api::{InitRequest, client};
use tokio::time::timeout;

use crate::rig::Rig;

/// A mounted ext4, unmounted at the end.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(16 << 20)
            .unwrap();
        std::fs::create_dir(dir.path().join("at")).unwrap();
        run("mkfs.ext4", &["-q", "-F"], &[&image]);
        run("mount", &["-o", "loop"], &[&image, &dir.path().join("at")]);
        Self(dir)
    }

    fn at(&self) -> std::path::PathBuf {
        self.0.path().join("at")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l"], &[&self.at()]);
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) {
    let status = Command::new(program)
        .args(options)
        .args(paths)
        .status()
        .unwrap();
    assert!(status.success(), "{program} {paths:?}");
}

#[tokio::test]
async fn a_frozen_disk_is_written_to_only_after_it_is_thawed() {
    let mounted = Mounted::new();
    let at = mounted.at();
    Rig::run_on(
        tempfile::tempdir().unwrap(),
        Peer::Host,
        Some(at.clone()),
        async |rig| {
            for _ in 0..2 {
                client::freeze(rig.unix().await).await.unwrap();
            }
            let kind = [("content-type", "application/octet-stream")];
            let path = format!("/files?path={}", at.join("f").display());
            let (sending, answer) = rig.start(&path, &kind);
            sending.unbounded_send("after".into()).unwrap();
            drop(sending);
            let mut answer = std::pin::pin!(answer);
            assert!(
                timeout(Duration::from_millis(100), answer.as_mut())
                    .await
                    .is_err()
            );
            // It waits, and nothing else does.
            assert_eq!(rig.get("/health").await.status, 204);
            assert!(!at.join("f").exists());
            for _ in 0..2 {
                client::unfreeze(rig.unix().await).await.unwrap();
            }
            assert_eq!(answer.await.status, 200);
            assert_eq!(std::fs::read(at.join("f")).unwrap(), b"after");

            // A guest that is told what it is may write as well.
            client::freeze(rig.unix().await).await.unwrap();
            client::init(rig.unix().await, &InitRequest::default())
                .await
                .unwrap();
            std::fs::write(at.join("g"), "").unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn a_file_system_that_cannot_be_frozen_is_an_error() {
    let proc = Some("/proc".into());
    Rig::run_on(
        tempfile::tempdir().unwrap(),
        Peer::Host,
        proc,
        async |rig| {
            let error = client::freeze(rig.unix().await).await.unwrap_err();
            assert!(error.to_string().contains("500: "), "{error}");
        },
    )
    .await;
    Rig::run(async |rig| {
        let error = client::freeze(rig.unix().await).await.unwrap_err();
        assert!(error.to_string().contains("no disk to freeze"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let mounted = Mounted::new();
    let at = mounted.at();
    Rig::run(async |rig| {
        let content = vec![b'x'; 20 << 20];
        let path = format!("/files?path={}", at.join("big").display());
        let full = rig
            .post(&path, "application/octet-stream", &[], content)
            .await;
        assert_eq!(
            (full.status, full.json()["message"].as_str()),
            (507, Some("not enough disk space available"))
        );
        assert_eq!(full.json()["code"], 507);
    })
    .await;
}

#[tokio::test]
async fn only_the_host_may_freeze() {
    Rig::run_for(Peer::Other, async |rig| {
        for path in ["/freeze", "/unfreeze", "/init", "/warm"] {
            assert_eq!(rig.call("POST", path, &[], "").await.status, 403, "{path}");
        }
    })
    .await;
}
