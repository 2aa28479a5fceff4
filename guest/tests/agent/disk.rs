//! Freezing, thawing and filling a disk: a loop-mounted ext4.

use std::{path::Path, process::Command, time::Duration};

use guest::Peer;
use guest_api::{InitRequest, client};
use tokio::time::timeout;

use crate::rig::Rig;

/// A mounted ext4; dropping it unmounts.
struct MountedDisk(tempfile::TempDir);

impl MountedDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(16 << 20)
            .unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        run("mkfs.ext4", &["-q", "-F"], &[&image]);
        run("mount", &["-o", "loop"], &[&image, &dir.path().join("mnt")]);
        Self(dir)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("mnt")
    }
}

impl Drop for MountedDisk {
    fn drop(&mut self) {
        run("umount", &["-l"], &[&self.path()]);
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
async fn upload_to_frozen_disk_waits_for_thaw() {
    let disk = MountedDisk::new();
    let path = disk.path();
    Rig::run_on(
        tempfile::tempdir().unwrap(),
        Peer::Host,
        Some(path.clone()),
        async |rig| {
            for _ in 0..2 {
                client::freeze(rig.unix().await).await.unwrap();
            }
            let headers = [("content-type", "application/octet-stream")];
            let url = format!("/files?path={}", path.join("f").display());
            let (sending, response) = rig.start(&url, &headers);
            sending.unbounded_send("after".into()).unwrap();
            drop(sending);
            let mut response = std::pin::pin!(response);
            assert!(
                timeout(Duration::from_millis(100), response.as_mut())
                    .await
                    .is_err()
            );
            // Only the upload blocks.
            assert_eq!(rig.get("/health").await.status, 204);
            assert!(!path.join("f").exists());
            for _ in 0..2 {
                client::unfreeze(rig.unix().await).await.unwrap();
            }
            assert_eq!(response.await.status, 200);
            assert_eq!(std::fs::read(path.join("f")).unwrap(), b"after");

            // An init request thaws the disk, too.
            client::freeze(rig.unix().await).await.unwrap();
            client::init(rig.unix().await, &InitRequest::default())
                .await
                .unwrap();
            std::fs::write(path.join("g"), "").unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn freeze_without_support_or_disk_is_an_error() {
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
async fn upload_to_full_disk_is_507() {
    let disk = MountedDisk::new();
    let path = disk.path();
    Rig::run(async |rig| {
        let content = vec![b'x'; 20 << 20];
        let url = format!("/files?path={}", path.join("big").display());
        let full = rig
            .post(&url, "application/octet-stream", &[], content)
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
async fn host_routes_are_403_for_clients() {
    Rig::run_for(Peer::Other, async |rig| {
        for path in ["/freeze", "/unfreeze", "/init", "/warm"] {
            assert_eq!(rig.call("POST", path, &[], "").await.status, 403, "{path}");
        }
    })
    .await;
}
