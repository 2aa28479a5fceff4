//! The socket device (virtio 1.2 section 5.10): streams between Unix sockets of the host and ports of the guest.
//!
//! A host program connects to the monitor's listening socket and writes `CONNECT <port>\n`; the device asks the guest for
//! a connection to that port and, once the guest accepts, answers `OK <host port>\n` and carries bytes both ways. When
//! the guest refuses, the stream is closed without an answer. Connections that the guest begins are refused: nothing on
//! the host listens.
//!
//! Sockets are watched edge-triggered. A device remembers which streams may be readable and goes on with them whenever
//! the guest gives buffers or credit, on the vCPU's own thread; only events of the host's side come through the
//! monitor's loop.
//!
//! A restored guest still has the connections of its former life. They are reset by a transport reset event, and no new
//! connection is made until the guest has given the event's buffer back, which it does after it has reset them: else a
//! new connection could be reset with the old ones.

mod connection;
mod muxer;
mod packet;

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixListener,
    },
};

use virtio_queue::{Queue, QueueOwnedT, QueueT};

use self::{
    muxer::Muxer,
    packet::{HEADER_LEN, Header},
};
use super::{
    Served,
    queue::{give_back, pop, serve, usable},
};
use crate::memory::GuestMemory;

/// The guest's context id. Every guest has the same: the host tells them apart by their monitors.
pub(crate) const GUEST_CID: u64 = 3;
/// The host's context id.
const HOST_CID: u64 = 2;

/// Queues of the device.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const EVENT: usize = 2;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const TRANSPORT_RESET: u32 = 0;

/// The socket device.
#[derive(Debug)]
pub(crate) struct Vsock {
    muxer: Muxer,
    reset: Reset,
}

/// Whether the guest still has connections of a former life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// It has none.
    Done,
    /// It has some and is to be told.
    Due,
    /// It was told and has not given the event's buffer back.
    Told,
}

impl Vsock {
    /// A device whose streams come through `listener`.
    pub(crate) fn new(listener: UnixListener) -> io::Result<Self> {
        Ok(Self {
            muxer: Muxer::new(listener)?,
            reset: Reset::Done,
        })
    }

    /// Says that the guest still has connections of a former life.
    pub(crate) fn expect_reset(&mut self) {
        self.reset = Reset::Due;
    }

    /// Becomes readable when something happens on the host's side; then [`Self::attend`] is due.
    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.muxer.events().as_fd()
    }

    /// Whether the guest has connections.
    pub(crate) fn has_connections(&self) -> bool {
        self.reset != Reset::Done || self.muxer.has_connections()
    }

    /// Handles what happened on the host's side.
    pub(crate) fn attend(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> Served {
        self.muxer.attend();
        self.pump(queues, memory)
    }

    /// Tells a guest that begins its next life that its connections are no more.
    pub(crate) fn begin_life(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> Served {
        let Some(events) = queues.get_mut(EVENT).filter(|_| self.reset == Reset::Due) else {
            return Served::default();
        };
        // A guest without buffers for events has no driver that could have connections.
        let sent = usable(events, memory) && send_event(events, memory);
        self.reset = if sent { Reset::Told } else { Reset::Done };
        Served { used: sent }
    }

    /// The driver starts over.
    pub(super) fn reset(&mut self) {
        self.muxer.drop_all();
        self.reset = Reset::Done;
    }

    pub(super) fn notify(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Served {
        let mut served = Served::default();
        match index {
            TRANSMIT => {
                if let Some(queue) = queues.get_mut(TRANSMIT) {
                    served = serve(queue, memory, |chain| {
                        if let Ok(mut reader) = chain.reader(memory) {
                            self.receive_from_guest(&mut reader);
                        }
                        0
                    });
                }
            }
            EVENT if self.reset == Reset::Told => self.reset = Reset::Done,
            _ => {}
        }
        let pumped = self.pump(queues, memory);
        Served {
            used: served.used || pumped.used,
        }
    }

    fn receive_from_guest(&mut self, reader: &mut impl Read) {
        let mut bytes = [0; HEADER_LEN];
        if reader.read_exact(&mut bytes).is_err() {
            return;
        }
        let Some(header) = Header::decode(&bytes) else {
            return;
        };
        let mut data = Vec::new();
        let len = u64::from(header.len.min(packet::DATA_LIMIT));
        match reader.take(len).read_to_end(&mut data) {
            Ok(read) if read as u64 == u64::from(header.len) => {
                self.muxer.take_packet(&header, &data);
            }
            // A header that promises more than its buffers hold.
            _ => self.muxer.refuse(&header),
        }
    }

    /// Gives the guest what waits for it, as far as it has buffers.
    fn pump(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> Served {
        let mut served = Served::default();
        let Some(queue) = queues.get_mut(RECEIVE) else {
            return served;
        };
        if self.reset != Reset::Done || !usable(queue, memory) {
            return served;
        }
        // As many as the queue holds: the guest notifies when it has given more.
        for _ in 0..queue.size() {
            if !self.muxer.has_output() {
                break;
            }
            let Some(chain) = pop(queue, memory) else {
                break;
            };
            let head = chain.head_index();
            let Ok(mut writer) = chain.writer(memory) else {
                served.used |= give_back(queue, memory, head, 0);
                continue;
            };
            let room = writer.available_bytes().saturating_sub(HEADER_LEN);
            let Some((header, data)) = self.muxer.next_packet(room) else {
                queue.go_to_previous_position();
                break;
            };
            let sent = writer
                .write_all(&header.encode())
                .and_then(|()| writer.write_all(&data));
            let written = if sent.is_ok() {
                HEADER_LEN + data.len()
            } else {
                0
            };
            served.used |= give_back(queue, memory, head, u32::try_from(written).unwrap_or(0));
        }
        served
    }
}

fn send_event(queue: &mut Queue, memory: &GuestMemory) -> bool {
    let Some(chain) = pop(queue, memory) else {
        return false;
    };
    let head = chain.head_index();
    let written = chain
        .writer(memory)
        .ok()
        .and_then(|mut writer| writer.write_all(&TRANSPORT_RESET.to_le_bytes()).ok())
        .map_or(0, |()| 4);
    give_back(queue, memory, head, written)
}
