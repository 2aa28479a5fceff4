//! Debian packages that the build and the tests need.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::step::step;

/// Packages that the build needs in addition to cargo.
pub(crate) const BUILD_PACKAGES: &[&str] = &[
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

/// Installs those of `packages` that are missing.
pub(crate) fn ensure_installed(packages: &[&str]) -> Result<()> {
    let missing = missing_packages(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("missing Debian packages: {}", missing.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "not running as root; install them with: sudo apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    step("apt-get update", || apt_get(&["update"]))?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing.iter().map(String::as_str));
    step("apt-get install", || apt_get(&arguments))
}

/// Returns the installed version of a package.
pub(crate) fn installed_version(package: &str) -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", package])
        .stderr(Stdio::null())
        .output()
        .context("failed to run dpkg-query")?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("package {package} is not installed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails unless this machine runs Debian 12.
pub(crate) fn require_bookworm() -> Result<()> {
    let release = fs::read_to_string(Path::new("/etc/os-release"))
        .context("failed to read /etc/os-release")?;
    if is_bookworm(&release) {
        return Ok(());
    }
    bail!("building the guest kernel and root disk requires Debian 12 (bookworm)")
}

fn is_bookworm(release: &str) -> bool {
    let has = |line: &str| release.lines().any(|l| l.trim().replace('"', "") == line);
    has("ID=debian") && has("VERSION_CODENAME=bookworm")
}

fn missing_packages(packages: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .context("failed to run dpkg-query (is this Debian?)")?;
    Ok(not_installed(
        packages,
        &String::from_utf8_lossy(&output.stdout),
    ))
}

fn not_installed(packages: &[&str], status: &str) -> Vec<String> {
    let installed = |name: &str| {
        status
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
        .context("failed to run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    std::io::stderr().write_all(&output.stdout)?;
    std::io::stderr().write_all(&output.stderr)?;
    bail!("apt-get {} failed ({})", arguments.join(" "), output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_unknown_packages_are_missing() {
        let status = "bc installed\nflex config-files\n";
        assert_eq!(
            not_installed(&["bc", "flex", "bison"], status),
            ["flex", "bison"]
        );
    }

    #[test]
    fn dpkg_reports_installed_packages() {
        assert_eq!(
            missing_packages(&["dpkg", "no-such-package-here"]).unwrap(),
            ["no-such-package-here"]
        );
        assert!(!installed_version("dpkg").unwrap().is_empty());
        installed_version("no-such-package-here").unwrap_err();
    }

    #[test]
    fn only_debian_12_is_bookworm() {
        assert!(is_bookworm("ID=debian\nVERSION_CODENAME=bookworm\n"));
        assert!(!is_bookworm("ID=debian\nVERSION_CODENAME=trixie\n"));
        assert!(!is_bookworm("ID=ubuntu\nID_LIKE=debian\n"));
    }
}
