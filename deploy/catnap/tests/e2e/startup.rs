//! Errors of `catnap up` about what this machine lacks.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
};

use tokio::{process::Command, time::timeout};

use crate::rig::{Gateway, KEY, TIMEOUT};

/// Builds a `catnap up` command that must fail.
fn up(gateway: &Gateway, data: &Path) -> Command {
    up_on(gateway, data, "127.0.0.1:0")
}

fn up_on(gateway: &Gateway, data: &Path, address: &str) -> Command {
    let mut command = Command::new(&gateway.artefacts.catnap);
    command
        .args(["up", "--listen", address, "--api-key", KEY])
        .arg("--data-dir")
        .arg(data)
        .env("NO_COLOR", "1")
        .env("RUST_LOG", "off")
        .env_remove("CATNAP_DATA_DIR")
        .env_remove("CATNAP_VMM")
        .env("CATNAP_GUEST_DIR", &gateway.artefacts.guest)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Asserts that a command fails before it listens, with a one-line error that contains these texts.
async fn assert_error(mut command: Command, texts: &[&str]) {
    let Output {
        status,
        stderr,
        stdout,
    } = timeout(TIMEOUT, command.output()).await.unwrap().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status}: {error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("catnap: "), "{error}");
    for text in texts {
        assert!(error.contains(text), "{error} lacks {text:?}");
    }
    assert!(!String::from_utf8_lossy(&stdout).contains("listens"));
}

#[tokio::test]
async fn missing_prerequisite_is_a_one_line_error() {
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

    let no_guest = with(&["--guest-dir", "/nowhere"]);
    assert_error(no_guest, &["vmlinux", "/nowhere", "cargo xtask build"]).await;
    let no_monitor = with(&["--vmm", "/nowhere/catnap-vmm"]);
    assert_error(no_monitor, &["/nowhere/catnap-vmm", "--vmm"]).await;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let in_use = up_on(&gateway, &data, &address);
    assert_error(in_use, &["listen on", &address]).await;

    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    assert_error(up(&gateway, &file), &[file.to_str().unwrap()]).await;
    assert_error(up(&gateway, &file.join("below")), &[file.to_str().unwrap()]).await;
    assert_error(up(&gateway, Path::new("/proc/catnap")), &["/proc/catnap"]).await;
    let data = gateway.work.data();
    let locked = [data.to_str().unwrap(), "used by another process"];
    assert_error(up(&gateway, &data), &locked).await;
    gateway.finish().await;
}

#[tokio::test]
async fn invalid_kernel_error_names_the_kernel() {
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
    assert_error(command, &["template", "kernel"]).await;
    gateway.finish().await;
}

#[tokio::test]
async fn start_without_root_states_what_the_jail_needs() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    // The programs and the guest are where only root reads: copies are not.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let catnap = dir.path().join("catnap");
    fs::copy(&gateway.artefacts.catnap, &catnap).unwrap();
    fs::write(dir.path().join("catnap-vmm"), "").unwrap();
    let mut command = Command::new(&catnap);
    command
        .args(["up", "--listen", "127.0.0.1:0", "--api-key", KEY])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .env("RUST_LOG", "off")
        .current_dir(dir.path())
        .uid(65534)
        .gid(65534)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    assert_error(command, &["root", "--no-jail"]).await;
    gateway.finish().await;
}

/// Hides `/dev/kvm` in a mount namespace. Prints a notice if this user may not create one.
#[tokio::test]
async fn missing_kvm_is_a_one_line_error() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-c", script, "sh"])
            .kill_on_drop(true);
        command
    };
    let hide = "mount -t tmpfs none /dev";
    let permitted = in_namespace(hide)
        .output()
        .await
        .is_ok_and(|output| output.status.success());
    if permitted {
        let up = up(&gateway, &dir.path().join("data"));
        let mut command = in_namespace(&format!(r#"{hide} && exec "$@""#));
        command
            .arg(up.as_std().get_program())
            .args(up.as_std().get_args());
        command
            .env("RUST_LOG", "off")
            .env("CATNAP_GUEST_DIR", &gateway.artefacts.guest);
        assert_error(command, &["/dev/kvm"]).await;
    } else {
        eprintln!("SKIPPED: this user may not create a mount namespace, which hides /dev/kvm");
    }
    gateway.finish().await;
}
