//! One stream between a Unix socket and a port of the guest.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::Shutdown,
    num::Wrapping,
    os::unix::net::UnixStream,
};

use super::packet::{Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// Bytes from the guest that are held for a host that does not read; the credit a guest is given.
pub(super) const BUFFER: u32 = 256 << 10;

/// A stream.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    phase: Phase,
    /// Bytes from the guest that the host has not taken.
    held: VecDeque<u8>,
    /// Bytes of the guest's that the host has taken, and how many of them the guest knows of.
    forwarded: Wrapping<u32>,
    announced: Wrapping<u32>,
    /// Bytes sent to the guest, and what it has said of its own buffer.
    sent: Wrapping<u32>,
    guest_forwarded: Wrapping<u32>,
    guest_buffer: u32,
    /// The stream may have bytes for the guest.
    pub(super) readable: bool,
    /// The host has closed the stream altogether: it takes no more either.
    pub(super) host_gone: bool,
    /// The host will send no more; the guest knows.
    ended: Ended,
    guest_ended: bool,
    /// What the guest is to be told next.
    due: VecDeque<(Op, u32)>,
}

/// How far a stream has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// The host has not yet said which port it wants.
    Greeting(Vec<u8>),
    /// The guest was asked.
    Asked,
    /// Bytes go both ways.
    Open,
    /// The guest is done; what is held goes to the host, then it is over.
    Draining,
    /// It is over.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Yes,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            phase: Phase::Greeting(Vec::new()),
            held: VecDeque::new(),
            forwarded: Wrapping(0),
            announced: Wrapping(0),
            sent: Wrapping(0),
            guest_forwarded: Wrapping(0),
            guest_buffer: 0,
            readable: true,
            host_gone: false,
            ended: Ended::No,
            guest_ended: false,
            due: VecDeque::new(),
        })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.due.is_empty()
    }

    /// Whether the guest knows of it.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.phase, Phase::Asked | Phase::Open)
    }

    /// Reads the host's greeting: the port it wants, once it has said so.
    pub(super) fn greet(&mut self) -> Option<u32> {
        let Phase::Greeting(line) = &mut self.phase else {
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
                    self.phase = Phase::Over;
                    return None;
                }
            }
        }
        let port = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_prefix("CONNECT ")?.parse().ok());
        self.phase = if port.is_some() {
            Phase::Asked
        } else {
            Phase::Over
        };
        if port.is_some() {
            self.due.push_back((Op::Request, 0));
        }
        port
    }

    /// The guest sent something for this stream.
    pub(super) fn take_packet(&mut self, header: &Header, data: &[u8], host_port: u32) {
        self.guest_buffer = header.buf_alloc;
        self.guest_forwarded = Wrapping(header.fwd_cnt);
        match (header.op, &self.phase) {
            (Op::Response, Phase::Asked) => {
                self.phase = Phase::Open;
                self.held.extend(format!("OK {host_port}\n").bytes());
                // The answer is no byte of the guest's.
                self.forwarded -= Wrapping(u32::try_from(self.held.len()).unwrap_or(0));
                self.flush();
            }
            (Op::Data, Phase::Open) => self.take(data),
            (Op::CreditRequest, Phase::Open) => self.due.push_back((Op::CreditUpdate, 0)),
            (Op::CreditUpdate, Phase::Open) => {}
            (Op::Shutdown, Phase::Open) => self.guest_shuts(header.flags),
            (Op::Reset, Phase::Open) => self.drain(),
            (Op::Reset, _) => self.phase = Phase::Over,
            _ => self.abort(),
        }
    }

    /// Whether it has something for the guest.
    pub(super) fn has_output(&self) -> bool {
        !self.due.is_empty()
            || (self.phase == Phase::Open
                && self.readable
                && self.ended == Ended::No
                && self.credit() > 0)
    }

    /// The next packet for the guest, with at most `room` bytes of data.
    pub(super) fn output(&mut self, room: usize) -> Option<(Op, u32, Vec<u8>)> {
        if let Some((op, flags)) = self.due.pop_front() {
            return Some((op, flags, Vec::new()));
        }
        if self.phase != Phase::Open || !self.readable || self.ended == Ended::Yes {
            return None;
        }
        let len = room.min(self.credit() as usize);
        if len == 0 {
            return None;
        }
        let mut data = vec![0; len];
        match self.stream.read(&mut data) {
            Ok(0) => {
                self.host_ends();
                self.due
                    .pop_front()
                    .map(|(op, flags)| (op, flags, Vec::new()))
            }
            Ok(count) => {
                data.truncate(count);
                self.sent += Wrapping(u32::try_from(count).unwrap_or(0));
                Some((Op::Data, 0, data))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.output(room),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.abort();
                self.due
                    .pop_front()
                    .map(|(op, flags)| (op, flags, Vec::new()))
            }
        }
    }

    /// What a packet says of the host's own buffer.
    pub(super) fn announce(&mut self) -> (u32, u32) {
        self.announced = self.forwarded;
        (BUFFER, self.forwarded.0)
    }

    /// Gives the host what is held, as far as it takes it.
    pub(super) fn flush(&mut self) {
        while !self.held.is_empty() {
            let (front, _) = self.held.as_slices();
            match self.stream.write(front) {
                Ok(0) => return self.abort(),
                Ok(count) => {
                    self.held.drain(..count);
                    self.forwarded += Wrapping(u32::try_from(count).unwrap_or(0));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.abort(),
            }
        }
        if (self.forwarded - self.announced).0 > BUFFER / 4 && self.phase == Phase::Open {
            self.due.push_back((Op::CreditUpdate, 0));
            self.announced = self.forwarded;
        }
        if self.phase == Phase::Draining {
            self.phase = Phase::Over;
        } else if self.guest_ended {
            self.finish_guest_end();
        }
    }

    fn take(&mut self, data: &[u8]) {
        // More than it was given credit for: a guest that breaks the protocol loses its connection.
        if self.held.len() + data.len() > BUFFER as usize + 32 || self.guest_ended {
            return self.abort();
        }
        self.held.extend(data);
        self.flush();
    }

    fn guest_shuts(&mut self, flags: u32) {
        if flags & SHUTDOWN_RECEIVE != 0 {
            self.ended = Ended::Yes;
        }
        if flags & SHUTDOWN_SEND != 0 {
            self.guest_ended = true;
            self.flush();
        }
    }

    /// All that the guest sent has reached the host.
    fn finish_guest_end(&mut self) {
        if self.ended == Ended::Yes {
            self.due.push_back((Op::Reset, 0));
            self.phase = Phase::Over;
        } else if self.stream.shutdown(Shutdown::Write).is_err() {
            self.abort();
        }
    }

    fn host_ends(&mut self) {
        self.ended = Ended::Yes;
        self.readable = false;
        if self.guest_ended && self.held.is_empty() {
            self.due.push_back((Op::Reset, 0));
            self.phase = Phase::Over;
        } else {
            let also = if self.host_gone { SHUTDOWN_RECEIVE } else { 0 };
            self.due.push_back((Op::Shutdown, SHUTDOWN_SEND | also));
        }
    }

    /// The guest is done with the stream.
    fn drain(&mut self) {
        self.due.clear();
        self.phase = if self.held.is_empty() {
            Phase::Over
        } else {
            Phase::Draining
        };
    }

    /// Ends the stream at once, on both sides.
    pub(super) fn abort(&mut self) {
        if self.is_known() {
            self.due.clear();
            self.due.push_back((Op::Reset, 0));
        }
        self.held.clear();
        self.phase = Phase::Over;
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        self.guest_buffer
            .saturating_sub((self.sent - self.guest_forwarded).0)
    }
}
