//! What to start, and starting it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Stdio},
    rc::Rc,
};

use rustix::termios::Winsize;
use tokio::net::unix::pipe;

use super::{follow::Output, input::Input, pty::Pty};
use crate::{
    agent::Agent,
    messages::process::ProcessConfig,
    rpc::{Code, RpcError},
    sys,
    user::User,
};

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
    /// As whom; as the agent itself if nobody.
    pub(crate) user: Option<User>,
}

/// A process with what leads to it. Whoever has it must see to it that it is reaped.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: u32,
    pub(super) input: Input,
    pub(super) output: Output,
}

impl Launch {
    /// What a caller asked for, completed with what the guest was told.
    pub(super) fn of(agent: &Agent, user: User, config: &ProcessConfig) -> Result<Self, RpcError> {
        let wrong = |text: String| Err(RpcError::new(Code::InvalidArgument, text));
        if config.cmd.is_empty() {
            return wrong("cmd is empty".to_owned());
        }
        let mut env = agent.environment(Some(&user));
        for (name, value) in &config.envs {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return wrong(format!(
                    "'{}' cannot be set in an environment",
                    name.escape_default()
                ));
            }
            env.insert(name.clone(), value.clone());
        }
        let workdir = agent.workdir(&user);
        let cwd = match config.cwd.as_deref() {
            None | Some("") => workdir,
            Some(cwd) => match cwd.strip_prefix('~') {
                Some(below) if below.is_empty() || below.starts_with('/') => {
                    user.home.join(below.trim_start_matches('/'))
                }
                _ => workdir.join(cwd),
            },
        };
        if !fs::metadata(&cwd).is_ok_and(|found| found.is_dir()) {
            return wrong(format!("cwd '{}' does not exist", cwd.display()));
        }
        let program = PathBuf::from(&config.cmd);
        Ok(Self {
            program,
            args: config.args.clone(),
            env,
            cwd,
            user: Some(user),
        })
    }

    /// Starts it with pipes for its output, and for its input if `stdin`.
    pub(super) fn start(&self, stdin: bool) -> io::Result<Started> {
        let mut command = self.command(sys::Terminal::None)?;
        command
            .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let missing = || io::Error::other("a pipe to the process is missing");
        let stdout = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
        let stderr = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
        let input = match child.stdin.take() {
            Some(stdin) => Input::pipe(pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?),
            None => Input::default(),
        };
        Ok(Started {
            pid: child.id(),
            input,
            output: Output::Pipes {
                stdout: pipe::Receiver::from_owned_fd(stdout)?,
                stderr: pipe::Receiver::from_owned_fd(stderr)?,
            },
        })
    }

    /// Starts it on a terminal of its own, which is its input and all its output.
    pub(super) fn start_on_pty(&self, size: Winsize) -> io::Result<Started> {
        let (ours, theirs) = Pty::open(size)?;
        let mut command = self.command(sys::Terminal::Stdin)?;
        command
            .stdin(theirs.try_clone()?)
            .stdout(theirs.try_clone()?)
            .stderr(theirs);
        let child = command.spawn()?;
        let pty = Rc::new(ours);
        Ok(Started {
            pid: child.id(),
            input: Input::pty(Rc::clone(&pty)),
            output: Output::Pty(pty),
        })
    }

    /// Starts it with no input and its output dropped, and returns its process id.
    pub(super) fn start_quietly(&self) -> io::Result<u32> {
        let mut command = self.command(sys::Terminal::None)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.spawn()?.id())
    }

    /// How the caller is told that [`Launch::start`] failed.
    pub(super) fn refusal(&self, error: &io::Error) -> RpcError {
        use io::ErrorKind as Kind;
        let code = match error.kind() {
            Kind::NotFound
            | Kind::PermissionDenied
            | Kind::InvalidInput
            | Kind::ArgumentListTooLong
            | Kind::IsADirectory
            | Kind::NotADirectory => Code::InvalidArgument,
            _ if error.raw_os_error() == Some(nix::libc::ENOEXEC) => Code::InvalidArgument,
            _ => Code::Internal,
        };
        RpcError::new(
            code,
            format!(
                "error starting process '{}': {error}",
                self.program.display()
            ),
        )
    }

    fn command(&self, terminal: sys::Terminal) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.env);
        sys::isolate(
            &mut command,
            self.user.as_ref().map(|user| user.credentials.clone()),
            &self.cwd,
            terminal,
        )?;
        Ok(command)
    }
}
