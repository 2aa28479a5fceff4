//! The program to start, and starting it.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Stdio},
    rc::Rc,
};

use rustix::termios::Winsize;
use tokio::net::unix::pipe;

use super::{input::InputChannel, output::Output, pty::Pty};
use crate::{
    rpc::{Code, RpcError},
    sys::{self, ControllingTerminal},
    user::User,
};

/// A program with its arguments, environment, directory and user.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
    /// The user to run as; `None` is the agent's own.
    pub(crate) user: Option<User>,
}

/// The connection of input and output of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProcessIo {
    /// Pipes for input and output.
    Pipes,
    /// Pipes for output, and empty input.
    OutputPipes,
    /// A terminal of this size.
    Pty(Winsize),
}

/// A running process with its input and output. The caller must reap it.
#[derive(Debug)]
pub(super) struct SpawnedProcess {
    pub(super) pid: u32,
    pub(super) input: InputChannel,
    pub(super) output: Output,
}

impl Launch {
    /// Starts the program.
    pub(super) fn spawn(&self, io: ProcessIo) -> io::Result<SpawnedProcess> {
        match io {
            ProcessIo::Pipes => self.spawn_with_pipes(Stdio::piped()),
            ProcessIo::OutputPipes => self.spawn_with_pipes(Stdio::null()),
            ProcessIo::Pty(size) => self.spawn_with_pty(size),
        }
    }

    fn spawn_with_pipes(&self, stdin: Stdio) -> io::Result<SpawnedProcess> {
        let mut command = self.command(ControllingTerminal::None)?;
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let missing = || io::Error::other("a pipe to the process is missing");
        let stdout = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
        let stderr = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
        let input = match child.stdin.take() {
            Some(stdin) => InputChannel::pipe(pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?),
            None => InputChannel::default(),
        };
        Ok(SpawnedProcess {
            pid: child.id(),
            input,
            output: Output::Pipes {
                stdout: pipe::Receiver::from_owned_fd(stdout)?,
                stderr: pipe::Receiver::from_owned_fd(stderr)?,
            },
        })
    }

    fn spawn_with_pty(&self, size: Winsize) -> io::Result<SpawnedProcess> {
        let (controller, terminal) = Pty::open(size)?;
        let mut command = self.command(ControllingTerminal::Stdin)?;
        command
            .stdin(terminal.try_clone()?)
            .stdout(terminal.try_clone()?)
            .stderr(terminal);
        let child = command.spawn()?;
        let pty = Rc::new(controller);
        Ok(SpawnedProcess {
            pid: child.id(),
            input: InputChannel::pty(Rc::clone(&pty)),
            output: Output::Pty(pty),
        })
    }

    /// Starts the program without input and output, and returns its process ID.
    pub(super) fn spawn_detached(&self) -> io::Result<u32> {
        let mut command = self.command(ControllingTerminal::None)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.spawn()?.id())
    }

    /// Converts an error of starting this program into one for the caller.
    pub(crate) fn spawn_error(&self, error: &io::Error) -> RpcError {
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

    fn command(&self, terminal: ControllingTerminal) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.env);
        sys::configure_child(
            &mut command,
            self.user.as_ref().map(|user| user.credentials.clone()),
            &self.cwd,
            terminal,
        )?;
        Ok(command)
    }
}
