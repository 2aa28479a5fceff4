//! State that all request handlers share.

use std::{
    cell::{Ref, RefCell, RefMut},
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::UNIX_EPOCH,
};

use crate::{
    disk::Disk,
    filesystem::WatcherRegistry,
    guest_config::GuestConfig,
    kernel::Kernel,
    metrics::UsageSampler,
    process::{Processes, Reap},
    user::{self, User, UserError},
};

/// The default `PATH` of started processes: Debian's for root.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Settings of an agent that no request changes.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that contains `etc` and `run`. Only tests change it.
    pub root: PathBuf,
    /// The user of requests that name none, until the host sets another default.
    pub default_user: String,
    /// A directory on the file system that the host may freeze.
    pub disk: Option<PathBuf>,
}

/// The agent's state. One value exists, for the lifetime of the guest.
#[derive(Debug)]
pub struct AgentState {
    config: Config,
    kernel: Box<dyn Kernel>,
    guest_config: RefCell<GuestConfig>,
    processes: Processes,
    watchers: WatcherRegistry,
    disk: Disk,
    usage: UsageSampler,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            default_user: "user".to_owned(),
            disk: None,
        }
    }
}

impl AgentState {
    /// Creates the state and starts to reap processes. Must be called within a `LocalSet`.
    pub fn start(config: Config, kernel: Box<dyn Kernel>, reap: Reap) -> io::Result<Rc<Self>> {
        let processes = Processes::start(reap)?;
        let disk = Disk::new(config.disk.clone());
        Ok(Rc::new(Self {
            config,
            kernel,
            guest_config: RefCell::default(),
            processes,
            watchers: WatcherRegistry::default(),
            disk,
            usage: UsageSampler::default(),
        }))
    }

    pub(crate) fn kernel(&self) -> &dyn Kernel {
        &*self.kernel
    }

    pub(crate) fn root(&self) -> &Path {
        &self.config.root
    }

    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    pub(crate) fn watchers(&self) -> &WatcherRegistry {
        &self.watchers
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn usage(&self) -> &UsageSampler {
        &self.usage
    }

    pub(crate) fn guest_config(&self) -> Ref<'_, GuestConfig> {
        self.guest_config.borrow()
    }

    pub(crate) fn guest_config_mut(&self) -> RefMut<'_, GuestConfig> {
        self.guest_config.borrow_mut()
    }

    /// Looks up the user `name`, or the default user if `name` is absent or empty.
    pub(crate) fn user(&self, name: Option<&str>) -> Result<User, UserError> {
        let guest = self.guest_config();
        let default = guest
            .default_user
            .as_deref()
            .unwrap_or(&self.config.default_user);
        user::find(
            self.root(),
            name.filter(|name| !name.is_empty()).unwrap_or(default),
        )
    }

    /// The working directory of requests of `user` that name none.
    pub(crate) fn workdir(&self, user: &User) -> PathBuf {
        self.guest_config()
            .default_workdir
            .clone()
            .unwrap_or_else(|| user.home.clone())
    }

    /// The base environment of a new process. Variables of the host override the agent's own.
    pub(crate) fn environment(&self, user: Option<&User>) -> BTreeMap<String, String> {
        let guest = self.guest_config();
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("E2B_SANDBOX".to_owned(), "true".to_owned()),
        ]);
        if let Some(id) = &guest.sandbox_id {
            env.insert("E2B_SANDBOX_ID".to_owned(), id.clone());
        }
        if let Some(id) = &guest.template_id {
            env.insert("E2B_TEMPLATE_ID".to_owned(), id.clone());
        }
        if let Some(user) = user {
            env.insert("HOME".to_owned(), user.home.to_string_lossy().into_owned());
            env.insert("USER".to_owned(), user.name.clone());
            env.insert("LOGNAME".to_owned(), user.name.clone());
        }
        env.extend(
            guest
                .env
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        env
    }

    /// The current time in Unix seconds.
    pub(crate) fn unix_seconds(&self) -> i64 {
        let since = self
            .kernel
            .now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}
