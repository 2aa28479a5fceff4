//! Debian packages that building needs.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::step::step;

/// Everything that building takes beside cargo.
pub(crate) const BUILD: &[&str] = &[
    "bc",
    "bison",
    "bzip2",
    "cmake",
    "e2fsprogs",
    "flex",
    "gcc",
    "libclang-dev",
    "libelf-dev",
    "libssl-dev",
    "linux-source-6.12",
    "make",
    "mmdebstrap",
    "patch",
    "xz-utils",
];

/// Makes sure that `packages` are installed, and does nothing when they are.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Debian packages that are missing: {}", missing.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "install them first: sudo apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    step("apt-get update", || apt_get(&["update"]))?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing.iter().map(String::as_str));
    step("apt-get install", || apt_get(&arguments))
}

/// The installed version of a package.
pub(crate) fn version(package: &str) -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", package])
        .stderr(Stdio::null())
        .output()
        .context("run dpkg-query")?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("package {package} is not installed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this machine is the Debian release the project is built on.
pub(crate) fn require_bookworm() -> Result<()> {
    let release =
        fs::read_to_string(Path::new("/etc/os-release")).context("read /etc/os-release")?;
    if is_bookworm(&release) {
        return Ok(());
    }
    bail!("guest kernel and root disk are built on Debian 12 (bookworm); this machine is not that")
}

fn is_bookworm(release: &str) -> bool {
    let has = |line: &str| release.lines().any(|l| l.trim().replace('"', "") == line);
    has("ID=debian") && has("VERSION_CODENAME=bookworm")
}

fn missing(packages: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .context("run dpkg-query, which Debian has")?;
    Ok(not_installed(
        packages,
        &String::from_utf8_lossy(&output.stdout),
    ))
}

fn not_installed(packages: &[&str], answer: &str) -> Vec<String> {
    let installed = |name: &str| {
        answer
            .lines()
            .any(|line| line.split_once(' ') == Some((name, "installed")))
    };
    packages
        .iter()
        .filter(|name| !installed(name))
        .map(|name| (*name).to_owned())
        .collect()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    std::io::stderr().write_all(&output.stdout)?;
    std::io::stderr().write_all(&output.stderr)?;
    bail!("apt-get {} failed ({})", arguments.join(" "), output.status)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_removed_or_unknown_package_is_missing() {
        let answer = "bc installed\nflex config-files\n";
        assert_eq!(
            not_installed(&["bc", "flex", "bison"], answer),
            ["flex", "bison"]
        );
    }

    #[test]
    fn dpkg_is_asked_for_real() {
        assert_eq!(
            missing(&["dpkg", "no-such-package-here"]).unwrap(),
            ["no-such-package-here"]
        );
        assert!(!version("dpkg").unwrap().is_empty());
        version("no-such-package-here").unwrap_err();
    }

    #[test]
    fn other_releases_are_told_apart() {
        assert!(is_bookworm("ID=debian\nVERSION_CODENAME=bookworm\n"));
        assert!(!is_bookworm("ID=debian\nVERSION_CODENAME=trixie\n"));
        assert!(!is_bookworm("ID=ubuntu\nID_LIKE=debian\n"));
    }
}
