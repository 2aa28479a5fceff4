//! All streams of one guest.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};

use super::{
    connection::{Connection, Phase},
    packet::{Header, Op},
};

/// Streams a guest has at a time; the host's further ones are closed at once.
const CONNECTIONS: usize = 1024;
/// Refusals that wait for a guest; those beyond are forgotten.
const REFUSALS: usize = 256;
const LISTENER: u64 = 0;
/// Host ports are from here on.
const FIRST_PORT: u32 = 1 << 30;

/// The streams, by host port.
#[derive(Debug)]
pub(super) struct Muxer {
    listener: UnixListener,
    epoll: OwnedFd,
    streams: HashMap<u32, Stream>,
    /// Host ports in the order in which they get to send.
    turns: VecDeque<u32>,
    refusals: VecDeque<Header>,
    next_port: u32,
}

#[derive(Debug)]
struct Stream {
    connection: Connection,
    guest_port: u32,
}

/// Where this life of the guest begins to count. A restored guest may still hold connections of its former life, in vain
/// but under their ports, for seconds; it resets a new one that it takes for such. So lives begin far from each other.
fn first_port() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(FIRST_PORT | u32::from_le_bytes(bytes) >> 2)
}

impl Muxer {
    pub(super) fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        Ok(Self {
            listener,
            epoll,
            streams: HashMap::new(),
            turns: VecDeque::new(),
            refusals: VecDeque::new(),
            next_port: first_port()?,
        })
    }

    pub(super) fn events(&self) -> &OwnedFd {
        &self.epoll
    }

    pub(super) fn has_connections(&self) -> bool {
        self.streams
            .values()
            .any(|stream| stream.connection.is_known())
    }

    pub(super) fn drop_all(&mut self) {
        self.streams.clear();
        self.turns.clear();
        self.refusals.clear();
    }

    /// Takes what happened to sockets.
    pub(super) fn attend(&mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let none = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&none)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return tracing::error!(%error, "wait for sockets"),
        }
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept(),
                port => self.socket_event(u32::try_from(port).unwrap_or(0), event.flags),
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) if self.streams.len() < CONNECTIONS => {
                    let added = Connection::new(stream).and_then(|connection| self.add(connection));
                    if let Err(error) = added {
                        tracing::warn!(%error, "take a stream");
                    }
                }
                // One too many: dropping it closes it.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return tracing::warn!(%error, "accept a stream"),
            }
        }
    }

    fn add(&mut self, connection: Connection) -> io::Result<()> {
        let port = self.free_port();
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(
            &self.epoll,
            connection.stream(),
            EventData::new_u64(u64::from(port)),
            flags,
        )?;
        self.streams.insert(
            port,
            Stream {
                connection,
                guest_port: 0,
            },
        );
        self.greet(port);
        Ok(())
    }

    fn free_port(&mut self) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.streams.contains_key(&port) {
                return port;
            }
        }
    }

    fn greet(&mut self, port: u32) {
        let Some(stream) = self.streams.get_mut(&port) else {
            return;
        };
        if let Some(guest_port) = stream.connection.greet() {
            stream.guest_port = guest_port;
            self.turns.push_back(port);
        }
        self.bury(port);
    }

    fn socket_event(&mut self, port: u32, flags: EventFlags) {
        let Some(stream) = self.streams.get_mut(&port) else {
            return;
        };
        if matches!(stream.connection.phase(), Phase::Greeting(_)) {
            return self.greet(port);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            stream.connection.readable = true;
        }
        stream.connection.host_gone |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
        // The host has gone altogether while the guest is still being asked.
        if flags.intersects(EventFlags::HUP | EventFlags::ERR)
            && *stream.connection.phase() == Phase::Asked
        {
            stream.connection.abort();
        }
        if flags.contains(EventFlags::OUT) {
            stream.connection.flush();
        }
        self.bury(port);
    }

    /// Takes a packet of the guest's.
    pub(super) fn take_packet(&mut self, header: &Header, data: &[u8]) {
        let port = header.host_port;
        match self.streams.get_mut(&port) {
            Some(stream)
                if stream.guest_port == header.guest_port && stream.connection.is_known() =>
            {
                stream.connection.take_packet(header, data, port);
                self.bury(port);
            }
            _ if header.op == Op::Reset => {}
            _ => self.refuse(header),
        }
    }

    /// Tells the guest that there is no such connection.
    pub(super) fn refuse(&mut self, header: &Header) {
        if self.refusals.len() < REFUSALS {
            self.refusals.push_back(Header {
                op: Op::Reset,
                len: 0,
                flags: 0,
                buf_alloc: 0,
                fwd_cnt: 0,
                ..*header
            });
        }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.refusals.is_empty()
            || self
                .streams
                .values()
                .any(|stream| stream.connection.has_output())
    }

    /// The next packet for the guest, with at most `room` bytes of data; streams take turns.
    pub(super) fn next_packet(&mut self, room: usize) -> Option<(Header, Vec<u8>)> {
        if let Some(header) = self.refusals.pop_front() {
            return Some((header, Vec::new()));
        }
        for _ in 0..self.turns.len() {
            let port = self.turns.pop_front()?;
            let Some(stream) = self.streams.get_mut(&port) else {
                continue;
            };
            self.turns.push_back(port);
            if let Some((op, flags, data)) = stream.connection.output(room) {
                let (buf_alloc, fwd_cnt) = stream.connection.announce();
                let len = u32::try_from(data.len()).unwrap_or(0);
                let guest_port = stream.guest_port;
                self.bury(port);
                return Some((
                    Header {
                        guest_port,
                        host_port: port,
                        len,
                        op,
                        flags,
                        buf_alloc,
                        fwd_cnt,
                    },
                    data,
                ));
            }
            self.bury(port);
        }
        None
    }

    /// Forgets a stream that is over, which closes its socket.
    fn bury(&mut self, port: u32) {
        if self
            .streams
            .get(&port)
            .is_some_and(|stream| stream.connection.is_over())
        {
            self.streams.remove(&port);
        }
    }
}
