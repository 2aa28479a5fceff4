//! Socket device (virtio 1.2 section 5.10): streams between Unix sockets of the host and vsock ports of the guest.
//!
//! A program on the host connects to the monitor's listening socket and writes `CONNECT <port>\n`. The device sends a
//! connection request to the guest and, once the guest accepts, responds `OK <host port>\n` and forwards bytes in both
//! directions. If the guest refuses, the stream is closed without a response. Connections that the guest requests are
//! reset, because no program on the host listens.
//!
//! Sockets are polled edge-triggered. The device remembers which streams may be readable and reads them whenever the
//! guest provides buffers or credit, on the vCPU's thread; the monitor's loop handles events of the host's side only.
//!
//! A restored guest still has the connections of its snapshot. A transport reset event closes them. The device makes no
//! new connection until the guest has returned the event's buffer, which it does after it has closed them; otherwise
//! the reset could close a new connection as well.

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

pub(crate) use self::packet::GUEST_CID;
use self::{
    muxer::Muxer,
    packet::{DATA_LIMIT, HEADER_LEN, Header},
};
use super::queue::{QueueOutcome, add_used, is_usable, pop, process};
use crate::memory::GuestMemory;

/// Queue indices of the device.
const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const TRANSPORT_RESET: u32 = 0;

/// A socket device.
#[derive(Debug)]
pub(crate) struct Vsock {
    muxer: Muxer,
    reset: TransportReset,
}

/// Progress of the reset of the connections that a restored guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransportReset {
    /// The guest has no such connections.
    Done,
    /// The guest has such connections; the event is not sent yet.
    Pending,
    /// The event is sent; the guest has not returned its buffer.
    Sent,
}

impl Vsock {
    /// Creates a device that accepts streams on `listener`.
    pub(crate) fn new(listener: UnixListener) -> io::Result<Self> {
        Ok(Self {
            muxer: Muxer::new(listener)?,
            reset: TransportReset::Done,
        })
    }

    /// Marks the guest as having connections from before the snapshot.
    pub(crate) fn require_transport_reset(&mut self) {
        self.reset = TransportReset::Pending;
    }

    /// Returns the descriptor that is readable if [`Self::handle_socket_events`] has events to handle.
    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.muxer.events().as_fd()
    }

    /// Returns whether the guest has connections.
    pub(crate) fn has_connections(&self) -> bool {
        self.reset != TransportReset::Done || self.muxer.has_connections()
    }

    /// Handles events of the host's sockets.
    pub(crate) fn handle_socket_events(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> QueueOutcome {
        self.muxer.poll_sockets();
        self.fill_rx_queue(queues, memory)
    }

    /// Sends the transport reset event to a restored guest, if it needs one.
    pub(crate) fn send_transport_reset(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> QueueOutcome {
        let Some(events) = queues
            .get_mut(EVENT)
            .filter(|_| self.reset == TransportReset::Pending)
        else {
            return QueueOutcome::default();
        };
        // A guest without event buffers has no driver, hence no connections.
        let sent = is_usable(events, memory) && write_reset_event(events, memory);
        self.reset = if sent {
            TransportReset::Sent
        } else {
            TransportReset::Done
        };
        QueueOutcome { used: sent }
    }

    /// Handles a device reset by the driver.
    pub(super) fn reset(&mut self) {
        self.muxer.clear();
        self.reset = TransportReset::Done;
    }

    pub(super) fn notify(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> QueueOutcome {
        let mut outcome = QueueOutcome::default();
        match index {
            TX => {
                if let Some(queue) = queues.get_mut(TX) {
                    outcome = process(queue, memory, |chain| {
                        if let Ok(mut reader) = chain.reader(memory) {
                            self.handle_tx_packet(&mut reader);
                        }
                        Some(0)
                    });
                }
            }
            EVENT if self.reset == TransportReset::Sent => self.reset = TransportReset::Done,
            _ => {}
        }
        let filled = self.fill_rx_queue(queues, memory);
        QueueOutcome {
            used: outcome.used || filled.used,
        }
    }

    fn handle_tx_packet(&mut self, reader: &mut impl Read) {
        let mut bytes = [0; HEADER_LEN];
        if reader.read_exact(&mut bytes).is_err() {
            return;
        }
        let Some(header) = Header::decode(&bytes) else {
            return;
        };
        let mut data = Vec::new();
        let len = u64::from(header.len.min(DATA_LIMIT));
        match reader.take(len).read_to_end(&mut data) {
            Ok(read) if read as u64 == u64::from(header.len) => {
                self.muxer.handle_packet(&header, &data);
            }
            // The header declares more data than the buffers hold.
            _ => self.muxer.enqueue_rst(&header),
        }
    }

    /// Writes pending packets to the guest's receive buffers.
    fn fill_rx_queue(&mut self, queues: &mut [Queue], memory: &GuestMemory) -> QueueOutcome {
        let mut outcome = QueueOutcome::default();
        let Some(queue) = queues.get_mut(RX) else {
            return outcome;
        };
        if self.reset != TransportReset::Done || !is_usable(queue, memory) {
            return outcome;
        }
        // At most one queue's length: the guest notifies the device of further buffers.
        for _ in 0..queue.size() {
            if !self.muxer.has_pending_rx() {
                break;
            }
            let Some(chain) = pop(queue, memory) else {
                break;
            };
            let head = chain.head_index();
            let Ok(mut writer) = chain.writer(memory) else {
                outcome.used |= add_used(queue, memory, head, 0);
                continue;
            };
            let room = writer.available_bytes().saturating_sub(HEADER_LEN);
            let Some((header, data)) = self.muxer.next_rx_packet(room) else {
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
            outcome.used |= add_used(queue, memory, head, u32::try_from(written).unwrap_or(0));
        }
        outcome
    }
}

fn write_reset_event(queue: &mut Queue, memory: &GuestMemory) -> bool {
    let Some(chain) = pop(queue, memory) else {
        return false;
    };
    let head = chain.head_index();
    let written = chain
        .writer(memory)
        .ok()
        .and_then(|mut writer| writer.write_all(&TRANSPORT_RESET.to_le_bytes()).ok())
        .map_or(0, |()| 4);
    add_used(queue, memory, head, written)
}
