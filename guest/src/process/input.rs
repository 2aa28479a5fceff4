//! What a process is given to read.

use std::{cell::RefCell, io, rc::Rc};

use rustix::termios::Winsize;
use tokio::{
    io::AsyncWriteExt,
    net::unix::pipe,
    sync::{Mutex, Notify},
};

use super::pty::Pty;
use crate::rpc::{Code, RpcError};

/// Which of a process's inputs a caller means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stdin,
    Pty,
}

/// The input of a process: none, a pipe, or its terminal.
#[derive(Debug, Default)]
pub(super) struct Input {
    sink: RefCell<Option<Sink>>,
    /// Told when it is closed: a write that waits for the process must not keep it open.
    closed: Notify,
}

#[derive(Debug, Clone)]
enum Sink {
    Pipe(Rc<Mutex<pipe::Sender>>),
    Pty { pty: Rc<Pty>, turn: Rc<Mutex<()>> },
}

impl Input {
    pub(super) fn pipe(pipe: pipe::Sender) -> Self {
        Self::of(Sink::Pipe(Rc::new(Mutex::new(pipe))))
    }

    pub(super) fn pty(pty: Rc<Pty>) -> Self {
        Self::of(Sink::Pty {
            pty,
            turn: Rc::default(),
        })
    }

    fn of(sink: Sink) -> Self {
        Self {
            sink: RefCell::new(Some(sink)),
            closed: Notify::new(),
        }
    }

    /// Writes all of `bytes`, as fast as the process takes them; writers take turns.
    pub(super) async fn write(&self, kind: Kind, bytes: &[u8]) -> Result<(), RpcError> {
        let closed = self.closed.notified();
        let sink = self.sink.borrow().clone();
        let write = async {
            match (kind, sink) {
                (Kind::Stdin, Some(Sink::Pipe(pipe))) => {
                    Ok(pipe.lock().await.write_all(bytes).await)
                }
                (Kind::Pty, Some(Sink::Pty { pty, turn })) => {
                    let _turn = turn.lock().await;
                    Ok(pty.write_all(bytes).await)
                }
                (Kind::Stdin, Some(Sink::Pty { .. })) => Err(refused(
                    "tty assigned to process: input should be written to the pty, not the stdin",
                )),
                (Kind::Pty, Some(Sink::Pipe(_))) => Err(refused(
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
            refused(&format!("error writing to the process: {error}"))
        })
    }

    /// Closes a pipe because a caller asks for it.
    pub(super) fn close_by_caller(&self) -> Result<(), RpcError> {
        if matches!(&*self.sink.borrow(), Some(Sink::Pty { .. })) {
            return Err(refused(
                "cannot close stdin of a process with a pty: send Ctrl+D (0x04) instead",
            ));
        }
        self.close();
        Ok(())
    }

    /// Closes it, and fails the writes that wait.
    pub(super) fn close(&self) {
        self.sink.borrow_mut().take();
        self.closed.notify_waiters();
    }

    /// Changes the size of the terminal.
    pub(super) fn resize(&self, size: Winsize) -> Result<(), RpcError> {
        match &*self.sink.borrow() {
            Some(Sink::Pty { pty, .. }) => pty
                .resize(size)
                .map_err(|error| RpcError::new(Code::Internal, format!("resize tty: {error}"))),
            _ => Err(refused("tty not assigned to process")),
        }
    }
}

fn not_open() -> RpcError {
    refused("stdin not enabled or closed")
}

fn refused(text: &str) -> RpcError {
    RpcError::new(Code::FailedPrecondition, text)
}
