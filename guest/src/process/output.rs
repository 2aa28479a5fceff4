//! The output streams of a process.

use std::rc::Rc;

use tokio::net::unix::pipe;

use super::pty::Pty;

/// Read ends of a process's output.
#[derive(Debug)]
pub(super) enum Output {
    Pipes {
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    },
    Pty(Rc<Pty>),
}
