//! The monitor's loop: requests of the host, and sockets of the guest.

mod capture;
mod host;
mod start;

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
};

use rustix::event::{PollFd, PollFlags, poll};
use vmm_api::wire::{Refusal, Reply, Request};

pub(crate) use self::host::Host;
use crate::{
    machine::{Machine, Vm},
    virtio::{Device, Served},
};

/// One monitor. It ends with its host: when the host's end of the socket closes, nobody is left to run a guest for.
#[derive(Debug)]
pub struct Monitor {
    host: Arc<Host>,
    phase: Phase,
}

/// What there is so far.
#[derive(Debug)]
enum Phase {
    /// Nothing.
    New,
    /// A VM with no guest, and the socket that streams will come through.
    Blank { vm: Box<Vm>, listener: UnixListener },
    /// A machine.
    Machine(Box<Machine>),
    /// A blank that was used up in vain.
    Spent,
}

/// A request that cannot be done.
#[derive(Debug)]
struct Refused {
    kind: Refusal,
    message: String,
}

impl Refused {
    fn because(message: &str) -> Self {
        Self {
            kind: Refusal::Other,
            message: message.to_owned(),
        }
    }
}

impl Monitor {
    /// A monitor that talks over `socket`.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            host: Arc::new(Host::new(socket)),
            phase: Phase::New,
        }
    }

    /// Serves until the host is gone.
    pub fn serve(mut self) -> io::Result<()> {
        loop {
            let (asked, happened) = self.wait()?;
            if happened {
                self.attend();
            }
            if asked {
                let Some((request, fds)) = self.host.receive()? else {
                    return Ok(());
                };
                self.answer(request, fds)?;
            }
        }
    }

    /// Waits: whether the host asked something, and whether something happened to the guest's sockets.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let sockets = match &self.phase {
            // A stopped machine's devices stand still.
            Phase::Machine(machine) if machine.is_running() => machine
                .bus()
                .devices()
                .find_map(|mut device| match device.device_mut() {
                    Device::Vsock(vsock) => Some(vsock.events().try_clone_to_owned()),
                    Device::Block(_) | Device::Rng(_) => None,
                })
                .transpose()?,
            _ => None,
        };
        let mut polled = vec![PollFd::from_borrowed_fd(self.host.socket(), PollFlags::IN)];
        polled.extend(
            sockets
                .iter()
                .map(|events| PollFd::new(events, PollFlags::IN)),
        );
        loop {
            match poll(&mut polled, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(0), ready(1)))
    }

    fn attend(&self) {
        let Phase::Machine(machine) = &self.phase else {
            return;
        };
        for mut transport in machine.bus().devices() {
            if !matches!(transport.device_mut(), Device::Vsock(_)) {
                continue;
            }
            transport.with(|device, queues, memory| match device {
                Device::Vsock(vsock) => ((), vsock.attend(queues, memory)),
                Device::Block(_) | Device::Rng(_) => ((), Served::default()),
            });
        }
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut fds = fds.into_iter();
        let answer = match request {
            Request::Prepare { vcpus, memory } => self.prepare(vcpus, memory, &mut fds),
            Request::Boot {
                command_line,
                disks,
            } => self.boot(command_line, disks, &mut fds),
            Request::Load { memory, disks } => self.load(memory, disks, &mut fds),
            Request::Resume => self.with_machine(|machine| machine.resume().map_err(Refused::from)),
            Request::Pause => self.with_machine(|machine| machine.pause().map_err(Refused::from)),
            Request::Capture {
                pages_offset,
                disks,
            } => self.capture(pages_offset, disks, &mut fds),
            Request::Advance { blocks_offsets } => self.advance(&blocks_offsets, &mut fds),
        };
        self.host
            .say(&answer.unwrap_or_else(|refused| Reply::Refused {
                kind: refused.kind,
                message: refused.message,
            }))
    }

    fn with_machine(
        &mut self,
        act: impl FnOnce(&mut Machine) -> Result<(), Refused>,
    ) -> Result<Reply, Refused> {
        match &mut self.phase {
            Phase::Machine(machine) => act(machine).map(|()| Reply::Done),
            _ => Err(Refused::because("there is no guest")),
        }
    }
}

/// The next descriptor beside a request.
fn next(fds: &mut impl Iterator<Item = OwnedFd>) -> Result<OwnedFd, Refused> {
    fds.next()
        .ok_or_else(|| Refused::because("a descriptor is missing beside the request"))
}
