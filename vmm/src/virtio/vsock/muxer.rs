//! Multiplexer of the connections of one guest.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use error_chain::chain;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};

use super::{
    connection::{Connection, Phase},
    packet::{Header, Op},
};

/// Maximum number of connections; further streams of the host are closed immediately.
const CONNECTION_LIMIT: usize = 1024;
/// Maximum number of resets that wait for receive buffers; further ones are dropped.
const PENDING_RESET_LIMIT: usize = 256;
const LISTENER: u64 = 0;
/// Lowest host port.
const FIRST_PORT: u32 = 1 << 30;

/// Connections by host port, and packets for the guest that belong to none.
#[derive(Debug)]
pub(super) struct Muxer {
    listener: UnixListener,
    epoll: OwnedFd,
    connections: HashMap<u32, Entry>,
    /// Host ports in the order in which they send.
    round_robin: VecDeque<u32>,
    pending_resets: VecDeque<Header>,
    next_port: u32,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    guest_port: u32,
}

/// Chooses the host port from which this monitor counts. A restored guest keeps the connections of its snapshot, under
/// their ports, for seconds, and resets a new connection that it takes for one of them. Random starts keep them apart.
fn random_first_port() -> io::Result<u32> {
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
            connections: HashMap::new(),
            round_robin: VecDeque::new(),
            pending_resets: VecDeque::new(),
            next_port: random_first_port()?,
        })
    }

    pub(super) fn events(&self) -> &OwnedFd {
        &self.epoll
    }

    pub(super) fn has_connections(&self) -> bool {
        self.connections
            .values()
            .any(|entry| entry.connection.is_guest_visible())
    }

    pub(super) fn clear(&mut self) {
        self.connections.clear();
        self.round_robin.clear();
        self.pending_resets.clear();
    }

    /// Handles all pending events of the sockets.
    pub(super) fn poll_sockets(&mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let no_wait = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&no_wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return tracing::error!(error = %chain(&error), "failed to poll sockets"),
        }
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept(),
                port => self.handle_socket_event(u32::try_from(port).unwrap_or(0), event.flags),
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) if self.connections.len() < CONNECTION_LIMIT => {
                    let added = Connection::new(stream).and_then(|connection| self.add(connection));
                    if let Err(error) = added {
                        tracing::warn!(error = %chain(&error), "failed to register stream");
                    }
                }
                // Over the limit: dropping the stream closes it.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    return tracing::warn!(error = %chain(&error), "failed to accept stream");
                }
            }
        }
    }

    fn add(&mut self, connection: Connection) -> io::Result<()> {
        let port = self.allocate_port();
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(
            &self.epoll,
            connection.stream(),
            EventData::new_u64(u64::from(port)),
            flags,
        )?;
        self.connections.insert(
            port,
            Entry {
                connection,
                guest_port: 0,
            },
        );
        self.handshake(port);
        Ok(())
    }

    fn allocate_port(&mut self) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.connections.contains_key(&port) {
                return port;
            }
        }
    }

    fn handshake(&mut self, port: u32) {
        let Some(entry) = self.connections.get_mut(&port) else {
            return;
        };
        if let Some(guest_port) = entry.connection.handshake() {
            entry.guest_port = guest_port;
            self.round_robin.push_back(port);
        }
        self.remove_if_closed(port);
    }

    fn handle_socket_event(&mut self, port: u32, flags: EventFlags) {
        let Some(entry) = self.connections.get_mut(&port) else {
            return;
        };
        if matches!(entry.connection.phase(), Phase::Handshake(_)) {
            return self.handshake(port);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            entry.connection.readable = true;
        }
        entry.connection.host_hung_up |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
        // The host closed the stream before the guest responded.
        if flags.intersects(EventFlags::HUP | EventFlags::ERR)
            && *entry.connection.phase() == Phase::Connecting
        {
            entry.connection.abort();
        }
        if flags.contains(EventFlags::OUT) {
            entry.connection.flush();
        }
        self.remove_if_closed(port);
    }

    /// Handles a packet from the guest.
    pub(super) fn handle_packet(&mut self, header: &Header, data: &[u8]) {
        let port = header.host_port;
        match self.connections.get_mut(&port) {
            Some(entry)
                if entry.guest_port == header.guest_port && entry.connection.is_guest_visible() =>
            {
                entry.connection.handle_packet(header, data, port);
                self.remove_if_closed(port);
            }
            _ if header.op == Op::Reset => {}
            _ => self.enqueue_rst(header),
        }
    }

    /// Queues a reset for a packet without a connection.
    pub(super) fn enqueue_rst(&mut self, header: &Header) {
        if self.pending_resets.len() < PENDING_RESET_LIMIT {
            self.pending_resets.push_back(Header {
                op: Op::Reset,
                len: 0,
                flags: 0,
                buf_alloc: 0,
                fwd_cnt: 0,
                ..*header
            });
        }
    }

    pub(super) fn has_pending_rx(&self) -> bool {
        !self.pending_resets.is_empty()
            || self
                .connections
                .values()
                .any(|entry| entry.connection.has_pending_rx())
    }

    /// Returns the next packet for the guest, with at most `room` bytes of data. Connections take turns.
    pub(super) fn next_rx_packet(&mut self, room: usize) -> Option<(Header, Vec<u8>)> {
        if let Some(header) = self.pending_resets.pop_front() {
            return Some((header, Vec::new()));
        }
        for _ in 0..self.round_robin.len() {
            let port = self.round_robin.pop_front()?;
            let Some(entry) = self.connections.get_mut(&port) else {
                continue;
            };
            self.round_robin.push_back(port);
            if let Some((op, flags, data)) = entry.connection.next_rx(room) {
                let (buf_alloc, fwd_cnt) = entry.connection.advertise_credit();
                let len = u32::try_from(data.len()).unwrap_or(0);
                let guest_port = entry.guest_port;
                self.remove_if_closed(port);
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
            self.remove_if_closed(port);
        }
        None
    }

    /// Removes a closed connection, which closes its socket.
    fn remove_if_closed(&mut self, port: u32) {
        if self
            .connections
            .get(&port)
            .is_some_and(|entry| entry.connection.is_closed())
        {
            self.connections.remove(&port);
        }
    }
}
