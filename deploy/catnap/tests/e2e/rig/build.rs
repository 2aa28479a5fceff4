//! What the tests run: the programs, the guest, a template of it, and the probe.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command as StdCommand, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Command;

use super::{KEY, MARK};

/// What the tests run.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// The program under test.
    pub(crate) catnap: PathBuf,
    /// The guest's kernel and root disk.
    pub(crate) guest: PathBuf,
    /// The program that runs in guests.
    pub(crate) probe: PathBuf,
    /// The program that takes the agent's place in one of them.
    pub(crate) impostor: PathBuf,
    /// A data directory with nothing but the template in it.
    pub(super) template: PathBuf,
    /// Where directories of tests are made; on the same file system as the template.
    pub(super) cache: PathBuf,
}

impl Built {
    /// Finds it all, and makes what can be made: once for all tests, whoever comes first.
    pub(super) fn find() -> Self {
        let catnap = PathBuf::from(env!("CARGO_BIN_EXE_catnap"));
        let vmm = catnap.with_file_name("catnap-vmm");
        assert!(
            vmm.is_file(),
            "there is no {}: build it with `cargo build -p vmm`",
            vmm.display()
        );
        let guest = env::var_os("CATNAP_GUEST_DIR").map_or_else(
            || catnap.parent().unwrap().with_file_name("guest"),
            PathBuf::from,
        );
        let (kernel, disk) = (guest.join("vmlinux"), guest.join("base.ext4"));
        assert!(
            kernel.is_file() && disk.is_file(),
            "there is no guest in {}: build it with `cargo xtask build`, or name its folder in CATNAP_GUEST_DIR",
            guest.display()
        );
        let cache = cache();
        fs::create_dir_all(&cache).unwrap();
        let lock = File::create(cache.join("lock")).unwrap();
        lock.lock().unwrap();
        let (probe, impostor) = (compiled(&cache, "probe"), compiled(&cache, "impostor"));
        let key = key(&[&catnap, &vmm, &kernel, &disk]);
        let template = cache.join(format!("template-{key}"));
        let built = Self {
            catnap,
            guest,
            probe,
            impostor,
            template,
            cache,
        };
        if !built.template.is_dir() {
            built.make_template();
        }
        built
    }

    /// `catnap up` on a data directory; `work` marks its processes.
    pub(super) fn up(&self, data: &Path, work: &Path) -> Command {
        let mut command = Command::from(self.std_up(data, work));
        command.kill_on_drop(true);
        command
    }

    fn std_up(&self, data: &Path, work: &Path) -> StdCommand {
        let mut command = StdCommand::new(&self.catnap);
        command
            .args(["up", "--listen", "127.0.0.1:0"])
            .args(["--api-key", KEY])
            .arg("--data-dir")
            .arg(data)
            .arg("--guest-dir")
            .arg(&self.guest)
            .env(MARK, work)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        for name in [
            "RUST_LOG",
            "CATNAP_API_KEY",
            "CATNAP_DATA_DIR",
            "CATNAP_VMM",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Lets a gateway build the template, and keeps what it leaves. Those of other programs or guests are removed.
    fn make_template(&self) {
        for entry in fs::read_dir(&self.cache).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("template-") || name == "making" {
                fs::remove_dir_all(&path).unwrap();
            }
        }
        let making = self.cache.join("making");
        let mut up = self
            .std_up(&making, &making)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
        let listens = lines.any(|line| line.unwrap().starts_with("catnap listens on "));
        if listens {
            let pid = Pid::from_raw(i32::try_from(up.id()).unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
        }
        let status = up.wait().unwrap();
        assert!(
            listens && status.success(),
            "the template could not be built: {status}"
        );
        fs::rename(&making, &self.template).unwrap();
    }
}

/// Where templates are kept.
fn cache() -> PathBuf {
    if let Some(dir) = env::var_os("CATNAP_TEMPLATE_CACHE") {
        return PathBuf::from(dir);
    }
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    cache.join("catnap").join("e2e")
}

/// Tells files from what they were before, without reading them.
fn key(files: &[&Path]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for file in files {
        let file = file.canonicalize().unwrap();
        let seen = fs::metadata(&file).unwrap();
        (
            file,
            seen.ino(),
            seen.len(),
            seen.mtime(),
            seen.mtime_nsec(),
        )
            .hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// A program for guests, compiled if it is not yet; for the C library of the same Debian that the guest has.
fn compiled(cache: &Path, name: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    let source = sources.join(format!("{name}.c"));
    let program = cache.join(format!("small-{name}-{}", key(&[&source])));
    if !program.is_file() {
        let aside = cache.join(format!("{name}.new"));
        let status = StdCommand::new("cc")
            .args(["-O2", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&aside, &source])
            .status()
            .expect("run cc, which Debian's gcc brings");
        assert!(
            status.success(),
            "{} could not be compiled: {status}",
            source.display()
        );
        fs::rename(&aside, &program).unwrap();
    }
    program
}
