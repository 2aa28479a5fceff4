//! A gateway that cannot start says why in one sentence.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
};

use tokio::{process::Command, time::timeout};

use crate::rig::{Gateway, KEY, PATIENCE};

/// `catnap up` on a data directory that must not do.
fn up(gateway: &Gateway, data: &Path) -> Command {
    up_at(gateway, data, "127.0.0.1:0")
}

fn up_at(gateway: &Gateway, data: &Path, address: &str) -> Command {
    let mut command = Command::new(&gateway.built.catnap);
    command
        .args(["up", "--listen", address, "--api-key", KEY])
        .arg("--data-dir")
        .arg(data)
        .env("NO_COLOR", "1")
        .env("RUST_LOG", "off")
        .env_remove("CATNAP_DATA_DIR")
        .env_remove("CATNAP_VMM")
        .env("CATNAP_GUEST_DIR", &gateway.built.guest)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// It ends by itself, with one sentence that has these words in it, and not as if all were well.
async fn complains(mut command: Command, words: &[&str]) {
    let Output {
        status,
        stderr,
        stdout,
    } = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status}: {said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("catnap: "), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    assert!(!String::from_utf8_lossy(&stdout).contains("listens"));
}

#[tokio::test]
async fn what_is_missing_is_said_in_one_sentence() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let with = |args: &[&str]| {
        let mut command = up(&gateway, &data);
        command.args(args);
        command
    };

    complains(
        with(&["--guest-dir", "/nowhere"]),
        &["vmlinux", "/nowhere", "cargo xtask build"],
    )
    .await;
    complains(
        with(&["--vmm", "/nowhere/catnap-vmm"]),
        &["/nowhere/catnap-vmm", "--vmm"],
    )
    .await;

    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap().to_string();
    let command = up_at(&gateway, &data, &address);
    complains(command, &["listen on", &address]).await;

    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    complains(up(&gateway, &file), &[file.to_str().unwrap()]).await;
    complains(up(&gateway, &file.join("below")), &[file.to_str().unwrap()]).await;
    complains(up(&gateway, Path::new("/proc/catnap")), &["/proc/catnap"]).await;
    complains(
        up(&gateway, &gateway.work.data()),
        &[
            gateway.work.data().to_str().unwrap(),
            "used by another process",
        ],
    )
    .await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_kernel_that_is_none_is_named() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let guest = dir.path().join("guest");
    fs::create_dir(&guest).unwrap();
    fs::write(guest.join("vmlinux"), "not a kernel").unwrap();
    fs::write(guest.join("base.ext4"), [0; 4096]).unwrap();
    let mut command = up(&gateway, &dir.path().join("data"));
    command.arg("--guest-dir").arg(&guest);
    complains(command, &["template", "kernel"]).await;
    gateway.finish().await;
}

/// In a mount name space where `/dev/kvm` is another device; where such a space may not be made this is said and left.
#[tokio::test]
async fn no_kvm_is_said_in_one_sentence() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let hidden = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-c", script, "sh"])
            .kill_on_drop(true);
        command
    };
    let hide = "mount -t tmpfs none /dev";
    let possible = hidden(hide)
        .output()
        .await
        .is_ok_and(|done| done.status.success());
    if possible {
        let plain = up(&gateway, &dir.path().join("data"));
        let mut command = hidden(&format!(r#"{hide} && exec "$@""#));
        command
            .arg(plain.as_std().get_program())
            .args(plain.as_std().get_args());
        command
            .env("RUST_LOG", "off")
            .env("CATNAP_GUEST_DIR", &gateway.built.guest);
        complains(command, &["/dev/kvm"]).await;
    } else {
        eprintln!("SKIPPED: this user may not hide /dev/kvm from a process");
    }
    gateway.finish().await;
}
