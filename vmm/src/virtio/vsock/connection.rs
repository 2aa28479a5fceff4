//! One connection between a Unix socket of the host and a vsock port of the guest.
//!
//! `rx` is the direction to the guest and `tx` the one from it, as the virtio specification has it.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::Shutdown,
    num::Wrapping,
    os::unix::net::UnixStream,
};

use super::packet::{DATA_LIMIT, Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// Bytes from the guest that are buffered for the host: the credit of the guest.
pub(super) const BUF_ALLOC: u32 = 256 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    phase: Phase,
    /// Bytes from the guest that the host has not read.
    tx_buffer: VecDeque<u8>,
    /// Number of bytes from the guest that the host has read, and the number that the guest was last sent.
    fwd_cnt: Wrapping<u32>,
    advertised: Wrapping<u32>,
    /// Number of bytes sent to the guest, and the guest's `fwd_cnt` and `buf_alloc`.
    rx_cnt: Wrapping<u32>,
    peer_fwd_cnt: Wrapping<u32>,
    peer_buf_alloc: u32,
    /// The host's socket may be readable.
    pub(super) readable: bool,
    /// The host closed the socket in both directions.
    pub(super) host_hung_up: bool,
    /// No more bytes go to the guest: the host shut down writing, or the guest reading.
    rx_shut: bool,
    guest_write_shut: bool,
    /// Control packets for the guest, with their flags.
    rx_control: VecDeque<(Op, u32)>,
}

/// State of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Reading the `CONNECT` line of the host.
    Handshake(Vec<u8>),
    /// Waiting for the guest's response to the connection request.
    Connecting,
    /// Established.
    Open,
    /// The guest closed the connection; buffered bytes still go to the host.
    Draining,
    /// Closed.
    Closed,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            phase: Phase::Handshake(Vec::new()),
            tx_buffer: VecDeque::new(),
            fwd_cnt: Wrapping(0),
            advertised: Wrapping(0),
            rx_cnt: Wrapping(0),
            peer_fwd_cnt: Wrapping(0),
            peer_buf_alloc: 0,
            readable: true,
            host_hung_up: false,
            rx_shut: false,
            guest_write_shut: false,
            rx_control: VecDeque::new(),
        })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed && self.rx_control.is_empty()
    }

    /// Returns whether the guest has state for the connection.
    pub(super) fn is_guest_visible(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Open)
    }

    /// Reads the `CONNECT` line; returns the port once the line is complete.
    pub(super) fn handshake(&mut self) -> Option<u32> {
        let Phase::Handshake(line) = &mut self.phase else {
            return None;
        };
        loop {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => break,
                Ok(1) if line.len() < 20 => line.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                _ => {
                    self.phase = Phase::Closed;
                    return None;
                }
            }
        }
        let port = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_prefix("CONNECT ")?.parse().ok());
        self.phase = if port.is_some() {
            Phase::Connecting
        } else {
            Phase::Closed
        };
        if port.is_some() {
            self.rx_control.push_back((Op::Request, 0));
        }
        port
    }

    /// Handles a packet from the guest.
    pub(super) fn handle_packet(&mut self, header: &Header, data: &[u8], host_port: u32) {
        self.peer_buf_alloc = header.buf_alloc;
        self.peer_fwd_cnt = Wrapping(header.fwd_cnt);
        match (header.op, &self.phase) {
            (Op::Response, Phase::Connecting) => {
                self.phase = Phase::Open;
                self.tx_buffer.extend(format!("OK {host_port}\n").bytes());
                // The response does not come from the guest, so it does not count.
                self.fwd_cnt -= Wrapping(u32::try_from(self.tx_buffer.len()).unwrap_or(0));
                self.flush();
            }
            (Op::Data, Phase::Open) => self.buffer_data(data),
            (Op::CreditRequest, Phase::Open) => self.rx_control.push_back((Op::CreditUpdate, 0)),
            (Op::CreditUpdate, Phase::Open) => {}
            (Op::Shutdown, Phase::Open) => self.handle_shutdown(header.flags),
            (Op::Reset, Phase::Open) => self.drain(),
            (Op::Reset, _) => self.phase = Phase::Closed,
            _ => self.abort(),
        }
    }

    /// Returns whether a packet may be pending for the guest.
    pub(super) fn has_pending_rx(&self) -> bool {
        !self.rx_control.is_empty()
            || (self.phase == Phase::Open && self.readable && !self.rx_shut && self.credit() > 0)
    }

    /// Returns the next packet for the guest, with at most `room` bytes of data.
    pub(super) fn next_rx(&mut self, room: usize) -> Option<(Op, u32, Vec<u8>)> {
        if let Some((op, flags)) = self.rx_control.pop_front() {
            return Some((op, flags, Vec::new()));
        }
        if self.phase != Phase::Open || !self.readable || self.rx_shut {
            return None;
        }
        let len = room.min(self.credit() as usize).min(DATA_LIMIT as usize);
        if len == 0 {
            return None;
        }
        let mut data = vec![0; len];
        match self.stream.read(&mut data) {
            Ok(0) => {
                self.handle_host_eof();
                self.rx_control
                    .pop_front()
                    .map(|(op, flags)| (op, flags, Vec::new()))
            }
            Ok(count) => {
                data.truncate(count);
                self.rx_cnt += Wrapping(u32::try_from(count).unwrap_or(0));
                Some((Op::Data, 0, data))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.next_rx(room),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.abort();
                self.rx_control
                    .pop_front()
                    .map(|(op, flags)| (op, flags, Vec::new()))
            }
        }
    }

    /// Returns `buf_alloc` and `fwd_cnt` for the header of a packet to the guest.
    pub(super) fn advertise_credit(&mut self) -> (u32, u32) {
        self.advertised = self.fwd_cnt;
        (BUF_ALLOC, self.fwd_cnt.0)
    }

    /// Writes buffered bytes to the host's socket until it is full.
    pub(super) fn flush(&mut self) {
        while !self.tx_buffer.is_empty() {
            let (front, _) = self.tx_buffer.as_slices();
            match self.stream.write(front) {
                Ok(0) => return self.abort(),
                Ok(count) => {
                    self.tx_buffer.drain(..count);
                    self.fwd_cnt += Wrapping(u32::try_from(count).unwrap_or(0));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.abort(),
            }
        }
        if (self.fwd_cnt - self.advertised).0 > BUF_ALLOC / 4 && self.phase == Phase::Open {
            self.rx_control.push_back((Op::CreditUpdate, 0));
            self.advertised = self.fwd_cnt;
        }
        if self.phase == Phase::Draining {
            self.phase = Phase::Closed;
        } else if self.guest_write_shut {
            self.finish_guest_shutdown();
        }
    }

    fn buffer_data(&mut self, data: &[u8]) {
        // A guest that exceeds its credit violates the protocol.
        if self.tx_buffer.len() + data.len() > BUF_ALLOC as usize + 32 || self.guest_write_shut {
            return self.abort();
        }
        self.tx_buffer.extend(data);
        self.flush();
    }

    fn handle_shutdown(&mut self, flags: u32) {
        if flags & SHUTDOWN_RECEIVE != 0 {
            self.rx_shut = true;
        }
        if flags & SHUTDOWN_SEND != 0 {
            self.guest_write_shut = true;
            self.flush();
        }
    }

    /// Completes the guest's shutdown once all of its bytes have reached the host.
    fn finish_guest_shutdown(&mut self) {
        if self.rx_shut {
            self.rx_control.push_back((Op::Reset, 0));
            self.phase = Phase::Closed;
        } else if self.stream.shutdown(Shutdown::Write).is_err() {
            self.abort();
        }
    }

    fn handle_host_eof(&mut self) {
        self.rx_shut = true;
        self.readable = false;
        if self.guest_write_shut && self.tx_buffer.is_empty() {
            self.rx_control.push_back((Op::Reset, 0));
            self.phase = Phase::Closed;
        } else {
            let receive = if self.host_hung_up {
                SHUTDOWN_RECEIVE
            } else {
                0
            };
            self.rx_control
                .push_back((Op::Shutdown, SHUTDOWN_SEND | receive));
        }
    }

    /// Handles a reset by the guest: buffered bytes still go to the host.
    fn drain(&mut self) {
        self.rx_control.clear();
        self.phase = if self.tx_buffer.is_empty() {
            Phase::Closed
        } else {
            Phase::Draining
        };
    }

    /// Closes the connection immediately on both sides.
    pub(super) fn abort(&mut self) {
        if self.is_guest_visible() {
            self.rx_control.clear();
            self.rx_control.push_back((Op::Reset, 0));
        }
        self.tx_buffer.clear();
        self.phase = Phase::Closed;
    }

    /// Returns the number of bytes that the guest can receive.
    fn credit(&self) -> u32 {
        self.peer_buf_alloc
            .saturating_sub((self.rx_cnt - self.peer_fwd_cnt).0)
    }
}
