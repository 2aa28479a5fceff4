//! The guest kernel: Debian's source with the configuration and patches of `guest/kernel`.

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
    step::{run_logged, step},
    workspace::Workspace,
};

const PACKAGE: &str = "linux-source-6.12";
const TARBALL: &str = "/usr/src/linux-source-6.12.tar.xz";
/// Raise this when the build steps below change their result.
const CACHE_VERSION: &str = "kernel 1";

/// The inputs of the build besides Debian's source.
struct Inputs {
    fragment: PathBuf,
    patches: Vec<PathBuf>,
}

/// Returns the path of `vmlinux`, which is built if the cache does not have it.
pub(super) fn build(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let inputs = Inputs::find(&workspace.path("guest/kernel"))?;
    let mut key = Key::new(CACHE_VERSION)
        .with(apt::installed_version(PACKAGE)?.as_bytes())
        .with_file(&inputs.fragment)?;
    for patch in &inputs.patches {
        key = key.with_file(patch)?;
    }
    let entry = cache.get_or_create("kernel", &key, |dir| {
        step("guest kernel (takes minutes, then cached)", || {
            inputs.compile(dir)
        })
    })?;
    Ok(entry.join("vmlinux"))
}

impl Inputs {
    fn find(dir: &Path) -> Result<Self> {
        let mut patches = Vec::new();
        for found in
            fs::read_dir(dir).with_context(|| format!("failed to read {}", dir.display()))?
        {
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

    /// Creates `vmlinux`, `config` and `log` in `dir`.
    fn compile(&self, dir: &Path) -> Result<()> {
        let log = dir.join("log");
        let source = tempfile::Builder::new().prefix("source-").tempdir_in(
            dir.parent()
                .context("failed to find the parent directory of the cache entry")?,
        )?;
        let source = source.path();
        run_logged(
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
            run_logged(command.current_dir(source), &log)
                .with_context(|| format!("failed to apply {} to {PACKAGE}", patch.display()))?;
        }
        self.configure(source, &log)?;
        run_logged(make(source).arg(jobs()).arg("vmlinux"), &log)?;
        let kernel = dir.join("vmlinux");
        let mut strip = Command::new("objcopy");
        run_logged(
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
        run_logged(make(source).arg("tinyconfig"), log)?;
        let mut merge = Command::new("scripts/kconfig/merge_config.sh");
        run_logged(
            merge
                .args(["-m", ".config"])
                .arg(&self.fragment)
                .current_dir(source),
            log,
        )?;
        run_logged(make(source).arg("olddefconfig"), log)?;
        let config = fs::read_to_string(source.join(".config"))
            .context("failed to read the final .config of the kernel")?;
        let fragment = fs::read_to_string(&self.fragment)?;
        let rejected = rejected_options(&fragment, &config);
        if !rejected.is_empty() {
            bail!(
                "the kernel configuration rejected options of {}: {}",
                self.fragment.display(),
                rejected.join(", ")
            );
        }
        Ok(())
    }
}

/// A reproducible `make` in the source directory.
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

/// The options that `fragment` sets and `config` lacks.
fn rejected_options(fragment: &str, config: &str) -> Vec<String> {
    let accepted: BTreeSet<&str> = config.lines().map(str::trim).collect();
    fragment
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("CONFIG_") && !accepted.contains(line))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_options_are_listed() {
        let fragment = "CONFIG_A=y\n# CONFIG_B is not set\n\nCONFIG_C=100\nCONFIG_D=y\n";
        let config = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=250\n# CONFIG_D is not set\n";
        assert_eq!(
            rejected_options(fragment, config),
            ["CONFIG_C=100", "CONFIG_D=y"]
        );
    }
}
