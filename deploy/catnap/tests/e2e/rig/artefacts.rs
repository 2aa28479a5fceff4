//! The programs and guest files under test, and a template that is built from them once.

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

use super::KEY;

#[derive(Debug, Clone)]
pub(crate) struct Artefacts {
    /// The `catnap` program.
    pub(crate) catnap: PathBuf,
    /// The `catnap-vmm` program.
    pub(crate) vmm: PathBuf,
    /// The directory of the guest kernel and root disk.
    pub(crate) guest: PathBuf,
    /// The program that serves tests inside guests.
    pub(crate) probe: PathBuf,
    /// The program that replaces the guest agent.
    pub(crate) hostile_agent: PathBuf,
    /// A data directory that contains the built template only.
    pub(super) template: PathBuf,
    /// The directory of work directories, on the file system of the template.
    pub(super) cache: PathBuf,
}

impl Artefacts {
    /// Finds the artefacts, and builds the template if the cache does not contain it.
    pub(super) fn find() -> Self {
        let catnap = PathBuf::from(env!("CARGO_BIN_EXE_catnap"));
        let vmm = catnap.with_file_name("catnap-vmm");
        assert!(
            vmm.is_file(),
            "{} does not exist; build it with `cargo build -p vmm`",
            vmm.display()
        );
        let guest = env::var_os("CATNAP_GUEST_DIR").map_or_else(
            || catnap.parent().unwrap().with_file_name("guest"),
            PathBuf::from,
        );
        let (kernel, disk) = (guest.join("vmlinux"), guest.join("base.ext4"));
        assert!(
            kernel.is_file() && disk.is_file(),
            "{} contains no guest; build it with `cargo xtask build`, or set CATNAP_GUEST_DIR",
            guest.display()
        );
        let cache = cache_dir();
        fs::create_dir_all(&cache).unwrap();
        let lock = File::create(cache.join("lock")).unwrap();
        lock.lock().unwrap();
        let key = fingerprint(&[&catnap, &vmm, &kernel, &disk]);
        let artefacts = Self {
            probe: compile(&cache, "probe"),
            hostile_agent: compile(&cache, "hostile_agent"),
            template: cache.join(format!("template-{key}")),
            catnap,
            vmm,
            guest,
            cache,
        };
        if !artefacts.template.is_dir() {
            artefacts.build_template();
        }
        artefacts
    }

    /// Builds a `catnap up` command on a data directory.
    pub(super) fn up(&self, data: &Path) -> Command {
        let mut command = Command::from(self.std_up(data));
        command.kill_on_drop(true);
        command
    }

    fn std_up(&self, data: &Path) -> StdCommand {
        let mut command = StdCommand::new(&self.catnap);
        command
            .args(["up", "--listen", "127.0.0.1:0"])
            .args(["--api-key", KEY])
            .arg("--data-dir")
            .arg(data)
            .arg("--guest-dir")
            .arg(&self.guest)
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

    /// Builds the template with a gateway, and removes templates of other artefacts.
    fn build_template(&self) {
        const UNFINISHED: &str = "unfinished";
        for entry in fs::read_dir(&self.cache).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("template-") || name == UNFINISHED {
                fs::remove_dir_all(&path).unwrap();
            }
        }
        let data = self.cache.join(UNFINISHED);
        let mut up = self.std_up(&data).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
        let listens = lines.any(|line| line.unwrap().starts_with("catnap listens on "));
        if listens {
            let pid = Pid::from_raw(i32::try_from(up.id()).unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
        }
        let status = up.wait().unwrap();
        assert!(
            listens && status.success(),
            "failed to build the template: {status}"
        );
        fs::rename(&data, &self.template).unwrap();
    }
}

fn cache_dir() -> PathBuf {
    if let Some(dir) = env::var_os("CATNAP_TEMPLATE_CACHE") {
        return PathBuf::from(dir);
    }
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    cache.join("catnap").join("e2e")
}

/// Hashes the metadata of files, which changes with their content.
fn fingerprint(files: &[&Path]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for file in files {
        let file = file.canonicalize().unwrap();
        let metadata = fs::metadata(&file).unwrap();
        (
            file,
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        )
            .hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// Compiles a guest program if the cache does not contain it. The guest has the C library of this Debian release.
fn compile(cache: &Path, name: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    let source = sources.join(format!("{name}.c"));
    let program = cache.join(format!("program-{name}-{}", fingerprint(&[&source])));
    if !program.is_file() {
        let temporary = cache.join(format!("{name}.new"));
        let status = StdCommand::new("cc")
            .args(["-O2", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&temporary, &source])
            .status()
            .expect("failed to run cc; install gcc");
        assert!(
            status.success(),
            "failed to compile {}: {status}",
            source.display()
        );
        fs::rename(&temporary, &program).unwrap();
    }
    program
}
