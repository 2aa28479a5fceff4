//! The input of a process: none, a pipe or a terminal.

use std::{cell::RefCell, io, rc::Rc};

use rustix::termios::Winsize;
use tokio::{
    io::AsyncWriteExt,
    net::unix::pipe,
    sync::{Mutex, Notify},
};

use super::pty::Pty;
use crate::rpc::{Code, RpcError};

/// The kind of input that a caller addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputKind {
    Stdin,
    Pty,
}

/// The write end of a process's input.
#[derive(Debug, Default)]
pub(crate) struct InputChannel {
    sink: RefCell<Option<Sink>>,
    /// Notified on close: a blocked write must not keep the pipe open.
    closed: Notify,
}

#[derive(Debug, Clone)]
enum Sink {
    Pipe(Rc<Mutex<pipe::Sender>>),
    Pty {
        pty: Rc<Pty>,
        write_lock: Rc<Mutex<()>>,
    },
}

impl InputChannel {
    pub(super) fn pipe(pipe: pipe::Sender) -> Self {
        Self::open(Sink::Pipe(Rc::new(Mutex::new(pipe))))
    }

    pub(super) fn pty(pty: Rc<Pty>) -> Self {
        Self::open(Sink::Pty {
            pty,
            write_lock: Rc::default(),
        })
    }

    fn open(sink: Sink) -> Self {
        Self {
            sink: RefCell::new(Some(sink)),
            closed: Notify::new(),
        }
    }

    /// Writes all of `bytes` at the pace of the process. Concurrent writes are serialized.
    pub(crate) async fn write(&self, kind: InputKind, bytes: &[u8]) -> Result<(), RpcError> {
        let closed = self.closed.notified();
        let sink = self.sink.borrow().clone();
        let write = async {
            match (kind, sink) {
                (InputKind::Stdin, Some(Sink::Pipe(pipe))) => {
                    Ok(pipe.lock().await.write_all(bytes).await)
                }
                (InputKind::Pty, Some(Sink::Pty { pty, write_lock })) => {
                    let _guard = write_lock.lock().await;
                    Ok(pty.write_all(bytes).await)
                }
                (InputKind::Stdin, Some(Sink::Pty { .. })) => Err(failed_precondition(
                    "tty assigned to process: input should be written to the pty, not the stdin",
                )),
                (InputKind::Pty, Some(Sink::Pipe(_))) => Err(failed_precondition(
                    "tty not assigned to process: input should be written to the stdin, not the pty",
                )),
                (_, None) => Err(not_open()),
            }
        };
        let written = tokio::select! {
            biased;
            () = closed => return Err(not_open()),
            written = write => written?,
        };
        written.map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.close();
            }
            failed_precondition(&format!("error writing to the process: {error}"))
        })
    }

    /// Closes a pipe on a caller's request. A terminal cannot be closed.
    pub(crate) fn close_stdin(&self) -> Result<(), RpcError> {
        if matches!(&*self.sink.borrow(), Some(Sink::Pty { .. })) {
            return Err(failed_precondition(
                "cannot close stdin of a process with a pty: send Ctrl+D (0x04) instead",
            ));
        }
        self.close();
        Ok(())
    }

    /// Closes the input and fails blocked writes.
    pub(super) fn close(&self) {
        self.sink.borrow_mut().take();
        self.closed.notify_waiters();
    }

    /// Changes the size of the terminal.
    pub(crate) fn resize(&self, size: Winsize) -> Result<(), RpcError> {
        match &*self.sink.borrow() {
            Some(Sink::Pty { pty, .. }) => pty
                .resize(size)
                .map_err(|error| RpcError::new(Code::Internal, format!("resize tty: {error}"))),
            _ => Err(failed_precondition("tty not assigned to process")),
        }
    }
}

fn not_open() -> RpcError {
    failed_precondition("stdin not enabled or closed")
}

fn failed_precondition(text: &str) -> RpcError {
    RpcError::new(Code::FailedPrecondition, text)
}
