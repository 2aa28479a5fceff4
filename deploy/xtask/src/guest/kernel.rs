//! The guest kernel: Debian's source, our configuration, our patches.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt,
    cache::{Cache, Key},
    step::{logged, step},
    workspace::Workspace,
};

const PACKAGE: &str = "linux-source-6.12";
const TARBALL: &str = "/usr/src/linux-source-6.12.tar.xz";
/// Raised when the steps below change what comes out.
const RECIPE: &str = "kernel 1";

/// What a kernel is made from beside Debian's source.
struct Inputs {
    fragment: PathBuf,
    patches: Vec<PathBuf>,
}

/// The path of `vmlinux`, built if the cache has none.
pub(super) fn build(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let inputs = Inputs::find(&workspace.path("guest/kernel"))?;
    let mut key = Key::new(RECIPE)
        .with(apt::version(PACKAGE)?.as_bytes())
        .with_file(&inputs.fragment)?;
    for patch in &inputs.patches {
        key = key.with_file(patch)?;
    }
    let entry = cache.entry("kernel", &key, |dir| {
        step("guest kernel (some minutes, once)", || inputs.compile(dir))
    })?;
    Ok(entry.join("vmlinux"))
}

impl Inputs {
    fn find(dir: &Path) -> Result<Self> {
        let mut patches = Vec::new();
        for found in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
            let path = found?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "patch")
            {
                patches.push(path);
            }
        }
        patches.sort();
        Ok(Self {
            fragment: dir.join("config-x86_64"),
            patches,
        })
    }

    /// Leaves `vmlinux`, `config` and `log` in `dir`.
    fn compile(&self, dir: &Path) -> Result<()> {
        let log = dir.join("log");
        let source = tempfile::Builder::new()
            .prefix("source-")
            .tempdir_in(dir.parent().context("find folder of the cache entry")?)?;
        let source = source.path();
        logged(
            Command::new("tar")
                .args(["--extract", "--strip-components=1", "--file", TARBALL])
                .current_dir(source),
            &log,
        )?;
        for patch in &self.patches {
            let mut command = Command::new("patch");
            command
                .args(["--strip=1", "--batch", "--forward", "--fuzz=0", "--input"])
                .arg(patch);
            logged(command.current_dir(source), &log)
                .with_context(|| format!("apply {} to {PACKAGE}", patch.display()))?;
        }
        self.configure(source, &log)?;
        logged(make(source).arg(jobs()).arg("vmlinux"), &log)?;
        let kernel = dir.join("vmlinux");
        let mut strip = Command::new("objcopy");
        logged(
            strip
                .arg("--strip-debug")
                .arg(source.join("vmlinux"))
                .arg(&kernel),
            &log,
        )?;
        fs::copy(source.join(".config"), dir.join("config"))?;
        Ok(())
    }

    fn configure(&self, source: &Path, log: &Path) -> Result<()> {
        logged(make(source).arg("tinyconfig"), log)?;
        let mut merge = Command::new("scripts/kconfig/merge_config.sh");
        logged(
            merge
                .args(["-m", ".config"])
                .arg(&self.fragment)
                .current_dir(source),
            log,
        )?;
        logged(make(source).arg("olddefconfig"), log)?;
        let config = fs::read_to_string(source.join(".config"))
            .context("read the kernel's final .config")?;
        let fragment = fs::read_to_string(&self.fragment)?;
        let lost = lost_options(&fragment, &config);
        if !lost.is_empty() {
            bail!(
                "options of {} that the kernel did not take: {}",
                self.fragment.display(),
                lost.join(", ")
            );
        }
        Ok(())
    }
}

/// `make` in the source, with nothing of this machine or this moment in what comes out.
fn make(source: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .current_dir(source)
        .env("ARCH", "x86_64")
        .env("KBUILD_BUILD_TIMESTAMP", "2026-01-01")
        .env("KBUILD_BUILD_USER", "catnap")
        .env("KBUILD_BUILD_HOST", "catnap")
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS");
    command
}

fn jobs() -> String {
    format!(
        "-j{}",
        thread::available_parallelism().map_or(1, usize::from)
    )
}

/// The lines of `fragment` that set something and are not in `config`.
fn lost_options(fragment: &str, config: &str) -> Vec<String> {
    let taken: BTreeSet<&str> = config.lines().map(str::trim).collect();
    fragment
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("CONFIG_") && !taken.contains(line))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn an_option_that_was_not_taken_is_named() {
        let fragment = "CONFIG_A=y\n# CONFIG_B is not set\n\nCONFIG_C=100\nCONFIG_D=y\n";
        let config = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=250\n# CONFIG_D is not set\n";
        assert_eq!(
            lost_options(fragment, config),
            ["CONFIG_C=100", "CONFIG_D=y"]
        );
    }
}
