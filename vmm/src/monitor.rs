//! Event loop of the monitor: requests from the host, and sockets of the guest's streams.

mod capture;
mod host_socket;
mod request_error;
mod space;
mod start;

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, poll};
use vmm_api::wire::{Reply, Request};

use self::{
    host_socket::HostSocket, request_error::RequestError, space::SpaceRetries, start::PrepareSpec,
};
use crate::{
    machine::{Machine, Vm},
    virtio::{Device, QueueOutcome},
};

/// A monitor. It ends when the host closes the socket.
#[derive(Debug)]
pub struct Monitor {
    host: Arc<HostSocket>,
    phase: Phase,
    /// Whether the guest has the doorbell ports.
    has_doorbell: bool,
    space: SpaceRetries,
    #[cfg(feature = "testing")]
    takeover: Option<Takeover>,
}

/// The attacker of a monitor, for tests.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Copy)]
pub struct Takeover {
    /// Whether the filters of system calls are on.
    pub filtered: bool,
    /// Runs in place of booting a guest, with the kernel command line; the request is refused with its result.
    pub attack: fn(&str) -> String,
}

/// Progress from a new process to a machine.
#[derive(Debug)]
enum Phase {
    /// No VM yet.
    New,
    /// A VM without a guest, and the socket through which streams will come.
    Blank { vm: Box<Vm>, listener: UnixListener },
    /// A machine.
    Machine(Box<Machine>),
    /// Booting or loading failed. The blank cannot be used again.
    Failed,
}

/// Readiness of the monitor's descriptors.
#[derive(Debug, Clone, Copy)]
struct Readiness {
    host: bool,
    streams: bool,
    /// A disk write has begun to wait for space.
    space: bool,
}

impl Monitor {
    /// Creates a monitor that the host controls over `socket`.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            host: Arc::new(HostSocket::new(socket)),
            phase: Phase::New,
            has_doorbell: false,
            space: SpaceRetries::default(),
            #[cfg(feature = "testing")]
            takeover: None,
        }
    }

    /// Creates a monitor that an attacker takes over when its guest would boot.
    #[cfg(feature = "testing")]
    pub fn taken_over(socket: OwnedFd, takeover: Takeover) -> Self {
        Self {
            takeover: Some(takeover),
            ..Self::new(socket)
        }
    }

    /// Serves requests until the host closes the socket.
    pub fn serve(mut self) -> io::Result<()> {
        loop {
            let ready = self.poll()?;
            if ready.streams {
                self.handle_socket_events();
            }
            if ready.space {
                self.space.begin(Instant::now());
            }
            if let Some(machine) = self.running_machine() {
                let bus = Arc::clone(machine.bus());
                self.space.attempt(&bus, Instant::now());
            }
            if ready.host {
                let Some((request, fds)) = self.host.receive()? else {
                    return Ok(());
                };
                self.handle_request(request, fds)?;
            }
        }
    }

    fn running_machine(&self) -> Option<&Machine> {
        match &self.phase {
            Phase::Machine(machine) if machine.is_running() => Some(machine),
            _ => None,
        }
    }

    /// Waits for a request or, while the machine runs, for an event on a stream or the next retry of a disk write.
    fn poll(&self) -> io::Result<Readiness> {
        let running = self.running_machine();
        let streams = running
            .and_then(|machine| {
                machine
                    .bus()
                    .devices()
                    .find_map(|mut device| match device.device_mut() {
                        Device::Vsock(vsock) => Some(vsock.events().try_clone_to_owned()),
                        Device::Block(_) | Device::Rng(_) => None,
                    })
            })
            .transpose()?;
        let mut polled = vec![PollFd::from_borrowed_fd(self.host.socket(), PollFlags::IN)];
        if let Some(streams) = &streams {
            polled.push(PollFd::new(streams, PollFlags::IN));
            let space = self.space.events();
            polled.extend(space.map(|event| PollFd::from_borrowed_fd(event, PollFlags::IN)));
        }
        loop {
            let timeout = running.and_then(|_| self.space.timeout(Instant::now()));
            match poll(&mut polled, timeout.as_ref()) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok(Readiness {
            host: polled.first().is_some_and(ready),
            streams: polled.get(1).is_some_and(ready),
            space: polled.iter().skip(2).any(ready),
        })
    }

    fn handle_socket_events(&self) {
        let Phase::Machine(machine) = &self.phase else {
            return;
        };
        for mut transport in machine.bus().devices() {
            if !matches!(transport.device_mut(), Device::Vsock(_)) {
                continue;
            }
            transport.with(|device, queues, memory| match device {
                Device::Vsock(vsock) => vsock.handle_socket_events(queues, memory),
                Device::Block(_) | Device::Rng(_) => QueueOutcome::default(),
            });
        }
    }

    fn handle_request(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut fds = fds.into_iter();
        let host = Arc::clone(&self.host);
        let starts = matches!(request, Request::Boot { .. } | Request::Resume);
        let _start = starts.then(|| host.begin_start());
        let result = match request {
            Request::Prepare {
                vcpus,
                memory,
                doorbell,
                jail,
            } => self.prepare(
                PrepareSpec {
                    vcpus,
                    memory,
                    doorbell,
                    jail,
                },
                &mut fds,
            ),
            Request::Boot {
                command_line,
                disks,
            } => self.boot(&command_line, disks, &mut fds),
            Request::Load { memory, disks } => self.load(memory, disks, &mut fds),
            Request::Resume => {
                self.with_machine(|machine| machine.resume().map_err(RequestError::from))
            }
            Request::Pause => {
                self.with_machine(|machine| machine.pause().map_err(RequestError::from))
            }
            Request::Capture {
                pages_offset,
                disks,
            } => self.capture(pages_offset, disks, &mut fds),
            Request::Advance { disks } => self.advance(disks, &mut fds),
        };
        self.host.send(&result.unwrap_or_else(Reply::from))
    }

    fn with_machine(
        &mut self,
        act: impl FnOnce(&mut Machine) -> Result<(), RequestError>,
    ) -> Result<Reply, RequestError> {
        match &mut self.phase {
            Phase::Machine(machine) => act(machine).map(|()| Reply::Done),
            _ => Err(RequestError::no_guest()),
        }
    }
}
