//! Devices under hostile and regular drivers.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{block::Block, vsock::Vsock, *};
use crate::memory::GuestMemory;

const MEMORY: usize = 1 << 20;

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap()
}

fn disk() -> Disk {
    let (base, top) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    Disk::new(64 * 4096, base, Vec::new(), top, 0).unwrap()
}

fn devices(dir: &std::path::Path) -> Vec<Device> {
    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    vec![
        Device::Block(Block::new(disk()).unwrap()),
        Device::Vsock(Vsock::new(listener).unwrap()),
        Device::Rng(Rng),
    ]
}

fn transport(device: Device, memory: &GuestMemory) -> Transport {
    Transport::new(
        device,
        memory.clone(),
        EventFd::new(libc::EFD_NONBLOCK).unwrap(),
    )
    .unwrap()
}

fn set(transport: &mut Transport, register: u64, value: u32) {
    transport.write(register, &value.to_le_bytes());
}

/// Sets up queue `index` at `at`: descriptors, the available ring at +0x1000, the used ring at +0x2000.
fn set_up_queue(transport: &mut Transport, index: u32, size: u32, at: u32) {
    for (register, value) in [
        (0x30, index),
        (0x38, size),
        (0x80, at),
        (0x84, 0),
        (0x90, at + 0x1000),
        (0x94, 0),
        (0xa0, at + 0x2000),
        (0xa4, 0),
        (0x44, 1),
    ] {
        set(transport, register, value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_register_accesses_do_not_panic(
        accesses in proptest::collection::vec((0_u64..0x200, any::<u32>(), 1_usize..9), 0..200),
        content in proptest::collection::vec(any::<u8>(), 4096),
    ) {
        let dir = tempfile::tempdir().unwrap();
        for device in devices(dir.path()) {
            let memory = memory();
            memory.write_slice(&content, GuestAddress(0x1000)).unwrap();
            let mut transport = transport(device, &memory);
            for (register, value, width) in &accesses {
                let mut bytes = [0; 8];
                transport.write(*register, &value.to_le_bytes()[..(*width).min(4)]);
                transport.read(*register, &mut bytes[..*width]);
            }
        }
    }

    #[test]
    fn random_queue_content_leaves_the_device_working(
        rings in proptest::collection::vec(any::<u8>(), 0x3000),
        available in any::<u16>(),
        data in proptest::collection::vec(any::<u8>(), 0x1000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        for device in devices(dir.path()) {
            let memory = memory();
            let queues = device.queue_sizes().len();
            let mut transport = transport(device, &memory);
            for index in 0..queues {
                let at = 0x1_0000 * (1 + u32::try_from(index).unwrap());
                let mut rings = rings.clone();
                // Most descriptors point into guest memory.
                for descriptor in rings[..0x1000].chunks_exact_mut(16) {
                    descriptor[3..8].fill(0);
                    descriptor[10..12].fill(0);
                    descriptor[13] &= 0;
                    descriptor[15] &= 0;
                }
                rings[0x1002..0x1004].copy_from_slice(&(available % 32).to_le_bytes());
                memory.write_slice(&rings, GuestAddress(u64::from(at))).unwrap();
                memory.write_slice(&data, GuestAddress(u64::from(at) + 0x4000)).unwrap();
                set_up_queue(&mut transport, u32::try_from(index).unwrap(), 16, at);
            }
            set(&mut transport, 0x70, 0xf);
            for index in 0..=queues {
                set(&mut transport, 0x50, u32::try_from(index).unwrap());
            }
            // The device has not reset its registers.
            let mut status = [0; 4];
            transport.read(0x70, &mut status);
            prop_assert_eq!(status, 0xf_u32.to_le_bytes());
        }
    }

    #[test]
    fn random_device_state_is_restored_or_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(state) = postcard::from_bytes::<TransportState>(&bytes) {
            let memory = memory();
            let interrupt = EventFd::new(libc::EFD_NONBLOCK).unwrap();
            if let Some(mut transport) = Transport::restored(Device::Rng(Rng), memory, interrupt, &state) {
                set(&mut transport, 0x50, 0);
            }
        }
    }
}

/// A correct driver of the socket device, with one buffer in each chain.
struct VsockDriver {
    transport: Transport,
    memory: GuestMemory,
    available: [u16; 2],
    _dir: tempfile::TempDir,
    socket: std::path::PathBuf,
}

impl VsockDriver {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let device = Device::Vsock(Vsock::new(UnixListener::bind(&socket).unwrap()).unwrap());
        let memory = memory();
        let mut transport = transport(device, &memory);
        for index in 0..3 {
            set_up_queue(&mut transport, index, 16, 0x1_0000 * (1 + index));
        }
        set(&mut transport, 0x70, 0xf);
        Self {
            transport,
            memory,
            available: [0; 2],
            _dir: dir,
            socket,
        }
    }

    /// Makes a buffer available: an empty one in queue 0, or `packet` in queue 1.
    fn add_buffer(&mut self, queue: u16, packet: &[u8]) {
        let at = 0x1_0000 * (1 + u64::from(queue));
        let count = &mut self.available[usize::from(queue)];
        let slot = u64::from(*count % 16);
        let buffer = at + 0x4000 + slot * 0x100;
        self.memory
            .write_slice(packet, GuestAddress(buffer))
            .unwrap();
        let (len, flags) = if queue == 0 {
            (0x100_u32, 2_u16)
        } else {
            (u32::try_from(packet.len()).unwrap(), 0)
        };
        let descriptor = GuestAddress(at + slot * 16);
        self.memory.write_obj(buffer, descriptor).unwrap();
        self.memory
            .write_obj(len, GuestAddress(descriptor.0 + 8))
            .unwrap();
        self.memory
            .write_obj(flags, GuestAddress(descriptor.0 + 12))
            .unwrap();
        self.memory
            .write_obj(
                u16::try_from(slot).unwrap(),
                GuestAddress(at + 0x1004 + slot * 2),
            )
            .unwrap();
        *count += 1;
        self.memory
            .write_obj(*count, GuestAddress(at + 0x1002))
            .unwrap();
        set(&mut self.transport, 0x50, u32::from(queue));
    }

    /// Lets the device handle the events of the host's sockets.
    fn handle_socket_events(&mut self) {
        self.transport.with(|device, queues, memory| match device {
            Device::Vsock(vsock) => vsock.handle_socket_events(queues, memory),
            _ => unreachable!(),
        });
    }

    /// Returns the packets received so far: operation, host port, data.
    fn received(&self) -> Vec<(u16, u32, Vec<u8>)> {
        let at = 0x1_0000_u64;
        let used: u16 = self.memory.read_obj(GuestAddress(at + 0x2002)).unwrap();
        (0..u64::from(used))
            .map(|slot| {
                let buffer = at + 0x4000 + slot * 0x100;
                let port: u32 = self.memory.read_obj(GuestAddress(buffer + 16)).unwrap();
                let len: u32 = self.memory.read_obj(GuestAddress(buffer + 24)).unwrap();
                let op: u16 = self.memory.read_obj(GuestAddress(buffer + 30)).unwrap();
                let mut data = vec![0; len as usize];
                self.memory
                    .read_slice(&mut data, GuestAddress(buffer + 44))
                    .unwrap();
                (op, port, data)
            })
            .collect()
    }
}

/// Builds a packet from guest port 80.
fn packet(host_port: u32, op: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&3_u64.to_le_bytes());
    bytes.extend_from_slice(&2_u64.to_le_bytes());
    for field in [80, host_port, u32::try_from(data.len()).unwrap()] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    for field in [1, op] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    for field in [0_u32, 0x1000, 0] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn vsock_stream_opens_and_carries_bytes_both_ways() {
    let mut driver = VsockDriver::new();
    for _ in 0..8 {
        driver.add_buffer(0, &[]);
    }
    let mut stream = UnixStream::connect(&driver.socket).unwrap();
    stream.write_all(b"CONNECT 80\n").unwrap();
    driver.handle_socket_events();
    let (op, port, _) = driver.received().pop().unwrap();
    assert_eq!(op, 1, "a request");
    driver.add_buffer(1, &packet(port, 2, b""));
    driver.add_buffer(1, &packet(port, 5, b"from the guest"));
    let mut response = vec![0; format!("OK {port}\nfrom the guest").len()];
    stream.read_exact(&mut response).unwrap();
    assert_eq!(
        String::from_utf8(response).unwrap(),
        format!("OK {port}\nfrom the guest")
    );
    stream.write_all(b"from the host").unwrap();
    driver.handle_socket_events();
    assert_eq!(
        driver.received().pop().unwrap(),
        (5, port, b"from the host".to_vec())
    );
}

#[test]
fn restored_vm_uses_fresh_vsock_ports() {
    let first_port = || {
        let mut driver = VsockDriver::new();
        driver.add_buffer(0, &[]);
        let mut stream = UnixStream::connect(&driver.socket).unwrap();
        stream.write_all(b"CONNECT 80\n").unwrap();
        driver.handle_socket_events();
        driver.received().pop().unwrap().1
    };
    let ports: std::collections::BTreeSet<u32> = (0..8).map(|_| first_port()).collect();
    assert_eq!(ports.len(), 8);
    assert!(ports.iter().all(|port| *port >= 1 << 30));
}

#[test]
fn refused_vsock_stream_is_closed_without_a_response() {
    let mut driver = VsockDriver::new();
    driver.add_buffer(0, &[]);
    let mut stream = UnixStream::connect(&driver.socket).unwrap();
    stream.write_all(b"CONNECT 80\n").unwrap();
    driver.handle_socket_events();
    let (_, port, _) = driver.received().pop().unwrap();
    driver.add_buffer(1, &packet(port, 3, b""));
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    assert_eq!(response, b"");
}

#[test]
fn packets_without_a_connection_are_reset() {
    let mut driver = VsockDriver::new();
    driver.add_buffer(0, &[]);
    driver.add_buffer(0, &[]);
    driver.add_buffer(1, &packet(77, 5, b"lost"));
    driver.add_buffer(1, &packet(22, 1, b""));
    assert_eq!(driver.received(), [(3, 77, vec![]), (3, 22, vec![])]);
}

#[test]
fn restored_guest_is_sent_the_reset_before_connections() {
    let mut driver = VsockDriver::new();
    driver.add_buffer(0, &[]);
    let mut stream = UnixStream::connect(&driver.socket).unwrap();
    stream.write_all(b"CONNECT 80\n").unwrap();
    driver
        .transport
        .with(|device, queues, memory| match device {
            Device::Vsock(vsock) => {
                vsock.require_transport_reset();
                // A buffer for the reset event.
                memory
                    .write_obj(0x3_4000_u64, GuestAddress(0x3_0000))
                    .unwrap();
                memory.write_obj(8_u32, GuestAddress(0x3_0008)).unwrap();
                memory.write_obj(2_u16, GuestAddress(0x3_000c)).unwrap();
                memory.write_obj(1_u16, GuestAddress(0x3_1002)).unwrap();
                vsock.send_transport_reset(queues, memory)
            }
            _ => unreachable!(),
        });
    let used: u16 = driver.memory.read_obj(GuestAddress(0x3_2002)).unwrap();
    assert_eq!(used, 1, "the event is sent");
    driver.handle_socket_events();
    assert_eq!(
        driver.received(),
        [],
        "no connection request before the guest handled the reset"
    );
    set(&mut driver.transport, 0x50, 2);
    driver.handle_socket_events();
    assert_eq!(driver.received().len(), 1);
}
