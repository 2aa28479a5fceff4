//! The agent: what it is told, and which call goes where.

use std::{
    cell::{Ref, RefCell, RefMut},
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::UNIX_EPOCH,
};

use guest_api::InitRequest;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use tracing::warn;

use crate::{
    access,
    awaken::{self, AwakenError, Kernel, Told},
    cors,
    disk::Disk,
    files,
    filesystem::{self, Watchers},
    hooks::{self, Moment},
    metrics,
    process::{self, Processes, Reap},
    respond::{self, Answer},
    user::{self, User, UserError},
};

/// What programs find first: the same as Debian gives root.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an agent can be given beside its requests.
#[derive(Debug, Clone)]
pub struct Config {
    /// Below which `etc` and `run` are. Only tests change it.
    pub root: PathBuf,
    /// Who runs what a caller asks for without naming a user, until the host says otherwise.
    pub default_user: String,
    /// A directory of the file system that the host may have frozen.
    pub disk: Option<PathBuf>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The host, which may say what the guest is.
    Host,
    /// Anybody else: a program in the guest, or a caller whose bytes the host passes on.
    Other,
}

/// The agent. There is one, and it lives as long as the guest.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    kernel: Box<dyn Kernel>,
    told: RefCell<Told>,
    processes: Processes,
    watchers: Watchers,
    disk: Disk,
    load: metrics::Load,
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

impl Agent {
    /// Starts it, and the reaping of processes with it. Must be called within a `LocalSet`.
    pub fn start(config: Config, kernel: Box<dyn Kernel>, reap: Reap) -> io::Result<Rc<Self>> {
        let processes = Processes::start(reap)?;
        let disk = Disk::new(config.disk.clone());
        Ok(Rc::new(Self {
            config,
            kernel,
            told: RefCell::default(),
            processes,
            watchers: Watchers::default(),
            disk,
            load: metrics::Load::default(),
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

    pub(crate) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn told(&self) -> Ref<'_, Told> {
        self.told.borrow()
    }

    pub(crate) fn told_mut(&self) -> RefMut<'_, Told> {
        self.told.borrow_mut()
    }

    /// The user a caller named, or the default one.
    pub(crate) fn user(&self, named: Option<&str>) -> Result<User, UserError> {
        let told = self.told();
        let default = told
            .default_user
            .as_deref()
            .unwrap_or(&self.config.default_user);
        user::find(
            self.root(),
            named.filter(|name| !name.is_empty()).unwrap_or(default),
        )
    }

    /// Where `user` works when nothing else is said.
    pub(crate) fn workdir(&self, user: &User) -> PathBuf {
        self.told()
            .default_workdir
            .clone()
            .unwrap_or_else(|| user.home.clone())
    }

    /// The environment every process begins with; the host's variables win over the agent's own.
    pub(crate) fn environment(&self, user: Option<&User>) -> BTreeMap<String, String> {
        let told = self.told();
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("E2B_SANDBOX".to_owned(), "true".to_owned()),
        ]);
        if let Some(id) = &told.sandbox {
            env.insert("E2B_SANDBOX_ID".to_owned(), id.clone());
        }
        if let Some(id) = &told.template {
            env.insert("E2B_TEMPLATE_ID".to_owned(), id.clone());
        }
        if let Some(user) = user {
            env.insert("HOME".to_owned(), user.home.to_string_lossy().into_owned());
            env.insert("USER".to_owned(), user.name.clone());
            env.insert("LOGNAME".to_owned(), user.name.clone());
        }
        env.extend(
            told.env
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        env
    }

    /// Seconds of 1970 now.
    pub(crate) fn unix_seconds(&self) -> i64 {
        let since = self
            .kernel
            .now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// Answers one request, also one of a page of another origin.
    pub(crate) async fn answer(self: Rc<Self>, peer: Peer, request: Request<Incoming>) -> Answer {
        if let Some(answer) = cors::preflight(&request) {
            return answer;
        }
        let crosses = cors::crosses(&request);
        let mut answer = self.route(peer, request).await;
        if crosses {
            cors::allow(answer.headers_mut());
        }
        answer
    }

    async fn route(self: Rc<Self>, peer: Peer, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/health") => return respond::no_content(),
            (_, "/init" | "/freeze" | "/unfreeze" | "/warm") => {
                return self.host_only(peer, request).await;
            }
            (&Method::GET, "/metrics") if peer == Peer::Host => return self.metrics(),
            (&Method::GET | &Method::HEAD, "/files") => return files::download(&self, &request),
            (&Method::POST, "/files") => return files::upload(&self, request).await,
            _ => {}
        }
        let allowed = access::check_token(&self.told().token, request.headers());
        if let Err(denied) = allowed {
            return respond::error(StatusCode::UNAUTHORIZED, &denied.to_string());
        }
        match (request.method(), path) {
            (&Method::POST, "/files/compose") => files::compose(&self, request).await,
            (&Method::GET, "/envs") => respond::json(StatusCode::OK, &self.told().env),
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::POST, _) if path.starts_with(process::SERVICE) => {
                process::answer(self, request).await
            }
            (&Method::POST, _) if path.starts_with(filesystem::SERVICE) => {
                filesystem::answer(self, request).await
            }
            (_, "/health" | "/files" | "/files/compose" | "/envs" | "/metrics") => {
                respond::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
            }
            _ => respond::error(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    /// What only the host may ask for.
    async fn host_only(&self, peer: Peer, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if peer != Peer::Host {
            let text = format!("only the host may ask for {path}");
            return respond::error(StatusCode::FORBIDDEN, &text);
        }
        if request.method() != Method::POST {
            return respond::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        }
        let done = match path {
            "/freeze" => self.disk.freeze(),
            "/unfreeze" => self.disk.thaw(),
            "/warm" => {
                hooks::run(self, Moment::BeforeSnapshot).await;
                Ok(())
            }
            _ => return self.init(request).await,
        };
        match done {
            Ok(()) => respond::no_content(),
            Err(error) => {
                let text = respond::chain(&error);
                warn!(error = text, path, "could not do as the host asked");
                respond::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
            }
        }
    }

    async fn init(&self, request: Request<Incoming>) -> Answer {
        let body = match respond::collect(request.into_body()).await {
            Ok(body) => body,
            Err(error) => return respond::error(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        // What serde says may repeat a secret, so it is not passed on.
        let Ok(request) =
            serde_json::from_slice::<InitRequest>(if body.is_empty() { b"{}" } else { &body })
        else {
            return respond::error(
                StatusCode::BAD_REQUEST,
                "request body is not an init request",
            );
        };
        match awaken::awaken(self, request).await {
            Ok(()) => {
                let mut answer = respond::no_content();
                let version = HeaderValue::from_static(guest_api::envd::VERSION);
                answer.headers_mut().insert("x-envd-version", version);
                answer
            }
            Err(error @ AwakenError::Timestamp) => {
                respond::error(StatusCode::BAD_REQUEST, &error.to_string())
            }
            Err(error) => {
                let text = respond::chain(&error);
                warn!(error = text, "could not awaken");
                respond::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
            }
        }
    }

    fn metrics(&self) -> Answer {
        match self.load.read(self.unix_seconds()) {
            Ok(metrics) => respond::json(StatusCode::OK, &metrics),
            Err(error) => {
                respond::error(StatusCode::INTERNAL_SERVER_ERROR, &respond::chain(&error))
            }
        }
    }
}
