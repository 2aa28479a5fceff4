//! The root disk of the `base` template.
//!
//! The cache has two levels: the Debian tree as a tar archive (takes a minute and the network), and the disk image made of
//! the tree and the agent (takes seconds).

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache::{Cache, Key},
    step::{run_logged, step},
    workspace::Workspace,
};

const SUITE: &str = "bookworm";
/// Raise these when the build steps below change their result.
const TREE_VERSION: &str = "tree 1";
const IMAGE_VERSION: &str = "image 1";
/// The size of the sparse image.
const IMAGE_BYTES: u64 = 1 << 30;
/// Fixed, so that the same tree yields the same image. It does not identify a sandbox.
const UUID: &str = "c47a9000-0000-4000-8000-000000000001";
/// The timestamp of every file in the image, in seconds since 1970.
const TIMESTAMP: &str = "1767225600";

/// Paths excluded from the tree, and exceptions to them.
const DPKG_OPTIONS: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
];

/// Returns the path of the disk image, which is built if the cache has none with this agent.
pub(super) fn build(workspace: &Workspace, cache: &Cache, agent: &Path) -> Result<PathBuf> {
    let dir = workspace.path("guest/rootfs");
    let list =
        fs::read_to_string(dir.join("packages")).context("failed to read the package list")?;
    let packages = packages(&list);
    let customize = dir.join("customize");
    let tree_key = || -> Result<Key> {
        let key = Key::new(TREE_VERSION).with(packages.join(",").as_bytes());
        key.with(DPKG_OPTIONS.join(",").as_bytes())
            .with_file(&customize)
    };
    let image_key = Key::new(IMAGE_VERSION)
        .with(&tree_key()?.digest())
        .with_file(agent)?;
    let entry = cache.get_or_create("image", &image_key, |dir| {
        let tree = cache.get_or_create("tree", &tree_key()?, |dir| {
            step(
                "Debian tree of the base template (takes a minute, then cached)",
                || bootstrap(&packages, &customize, dir),
            )
        })?;
        step("root disk of the base template", || {
            create_image(&tree.join("tree.tar"), agent, dir)
        })
    })?;
    Ok(entry.join("base.ext4"))
}

/// Creates `tree.tar` and `log` in `dir`.
fn bootstrap(packages: &[&str], customize: &Path, dir: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--aptopt=Acquire::Languages \"none\""]);
    for option in DPKG_OPTIONS {
        command.arg(format!("--dpkgopt={option}"));
    }
    command
        .arg(format!("--include={}", packages.join(",")))
        .arg(format!("--customize-hook={}", customize.display()))
        .args([SUITE, "tree.tar"])
        .args(apt_sources(Path::new("/etc/apt"))?)
        .env("SOURCE_DATE_EPOCH", TIMESTAMP)
        .current_dir(dir);
    run_logged(&mut command, &dir.join("log"))
}

/// Creates `base.ext4` and `log` in `dir`.
fn create_image(tree: &Path, agent: &Path, dir: &Path) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("creating the root disk requires root, to set owners and modes of files");
    }
    let log = dir.join("log");
    let root = tempfile::Builder::new().prefix("root-").tempdir_in(
        dir.parent()
            .context("failed to find the parent directory of the cache entry")?,
    )?;
    let root = root.path();
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--numeric-owner",
        "--preserve-permissions",
        "--xattrs",
        "--xattrs-include=*",
    ]);
    run_logged(
        tar.arg("--file").arg(tree).arg("--directory").arg(root),
        &log,
    )?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    let installed = root.join("usr/sbin/catnap-guest");
    fs::copy(agent, &installed)
        .with_context(|| format!("failed to install {}", agent.display()))?;
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755))?;

    let image = dir.join("base.ext4");
    File::create(&image)?.set_len(IMAGE_BYTES)?;
    run_logged(&mut mkfs(root, &image), &log)?;
    let mut check = Command::new("/sbin/e2fsck");
    run_logged(check.args(["-f", "-n"]).arg(&image), &log)?;
    fs::set_permissions(&image, fs::Permissions::from_mode(0o444))?;
    Ok(())
}

/// Creates the filesystem without metadata checksums: snapshot layers have a checksum for each block.
fn mkfs(root: &Path, image: &Path) -> Command {
    let mut command = Command::new("/sbin/mkfs.ext4");
    let extended =
        format!("hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0");
    command
        .args([
            "-q", "-F", "-b", "4096", "-m", "0", "-L", "base", "-U", UUID, "-E", &extended,
        ])
        .args([
            "-O",
            "^metadata_csum,^64bit,^orphan_file,^metadata_csum_seed",
            "-J",
            "size=4",
            "-d",
        ])
        .arg(root)
        .arg(image)
        .env("E2FSPROGS_FAKE_TIME", TIMESTAMP)
        .env("SOURCE_DATE_EPOCH", TIMESTAMP);
    command
}

/// Finds the apt sources of this machine for the suite, so that the tree uses the same mirrors. Without any, mmdebstrap
/// uses its default mirror.
fn apt_sources(apt: &Path) -> Result<Vec<PathBuf>> {
    let mut candidates = vec![apt.join("sources.list")];
    if let Ok(parts) = fs::read_dir(apt.join("sources.list.d")) {
        for part in parts {
            candidates.push(part?.path());
        }
    }
    candidates.retain(|path| {
        let known = path
            .extension()
            .is_some_and(|extension| extension == "list" || extension == "sources");
        known && fs::read_to_string(path).is_ok_and(|text| is_debian_source(&text))
    });
    candidates.sort();
    Ok(candidates)
}

/// Returns whether an apt source file lists Debian itself in this suite, not a third-party archive.
fn is_debian_source(text: &str) -> bool {
    let mut words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace);
    let debian = |word: &str| {
        let path = word.trim_end_matches('/');
        word.contains("://") && (path.ends_with("/debian") || path.ends_with("/debian-security"))
    };
    let (mut archive, mut suite) = (false, false);
    for word in &mut words {
        archive |= debian(word);
        suite |= word == SUITE
            || word
                .strip_prefix(SUITE)
                .is_some_and(|rest| rest.starts_with('-'));
    }
    archive && suite
}

/// Parses a package list: one package a line, `#` begins a comment.
fn packages(list: &str) -> Vec<&str> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn third_party_and_other_suites_are_not_debian_sources() {
        assert!(is_debian_source(
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
        ));
        assert!(is_debian_source(
            "deb [arch=amd64] https://mirror.example/debian-security/ bookworm-security main\n"
        ));
        assert!(!is_debian_source(
            "deb https://mirror.example/linux/other bookworm stable\n"
        ));
        assert!(!is_debian_source(
            "deb http://mirror.example/debian trixie main\n"
        ));
        assert!(!is_debian_source(
            "# deb http://mirror.example/debian bookworm main\n"
        ));
    }

    #[test]
    fn apt_sources_are_selected_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        let good = parts.join("debian.sources");
        fs::write(
            &good,
            "URIs: http://mirror.example/debian\nSuites: bookworm\n",
        )
        .unwrap();
        fs::write(
            parts.join("other.list"),
            "deb http://mirror.example/other bookworm main\n",
        )
        .unwrap();
        fs::write(
            parts.join("debian.sources.bak"),
            "deb http://mirror.example/debian bookworm main\n",
        )
        .unwrap();
        assert_eq!(apt_sources(dir.path()).unwrap(), [good]);
    }

    #[test]
    fn package_list_ignores_comments() {
        assert_eq!(packages("# list\nbash\n\n  git \n"), ["bash", "git"]);
    }
}
