//! Flat guest: a few instructions without a kernel, for tests and benchmarks.
//!
//! It runs in user mode, which every KVM runs natively, with I/O privilege to ring the doorbell
//! ([`DOORBELL_WAIT_PORT`]). Each of its pages has a counter, initially zero. The guest rings [`READY`]; then, each
//! time it is resumed, it sums the counters, increments each, and rings the sum. The guest of [`kernel_with_disk`] also
//! writes its first page to block [`DISK_BLOCK`] of its disk each time.

use crate::{
    PAGE_SIZE,
    platform::{DOORBELL_WAIT_PORT, VIRTIO_MMIO_BASE},
};

/// Value of the first ring.
pub const READY: u32 = 0xc0de_0001;
/// Guest-physical address of its pages.
pub const PAGES: u64 = 0x40_0000;
/// Guest-physical address of the code of an [`image`].
pub const ENTRY: u64 = LOAD as u64;
/// The block that the guest of [`kernel_with_disk`] writes.
pub const DISK_BLOCK: u64 = 1;
/// Pages that the device and the guest of [`kernel_with_disk`] write for each request, beside the counters': available
/// ring, used ring, status.
pub const DISK_PAGES: [u64; 3] = [
    AVAILABLE_RING as u64 / PAGE_SIZE as u64,
    USED_RING as u64 / PAGE_SIZE as u64,
    STATUS as u64 / PAGE_SIZE as u64,
];

const LOAD: u32 = 0x10_0000;
const ENTRY_STACK: u32 = 0x8_0000;
const USER_STACK: u32 = 0x9_0000;
/// User mode selectors in the GDT that the monitor sets up, and flags with I/O privilege level 3.
const USER_DATA: u8 = 0x2b;
const USER_CODE: u8 = 0x33;
const PRIVILEGED: u32 = 0x3002;

// The queue of the disk and its one request.
const DESCRIPTORS: u32 = 0x20_0000;
const AVAILABLE_RING: u32 = 0x20_1000;
const USED_RING: u32 = 0x20_2000;
const STATUS: u32 = 0x20_3000;
const REQUEST_HEADER: u32 = 0x20_4000;
const QUEUE_NOTIFY: u32 = 0x50;

/// Returns the value that the guest rings at its `pass`-th resume, counted from 0.
pub fn sum(pages: u32, pass: u32) -> u32 {
    pages.wrapping_mul(pass)
}

/// Builds a kernel image (ELF) of the guest with this number of pages.
pub fn kernel(pages: u32) -> Vec<u8> {
    image(&code(pages, &[], &[]))
}

/// Builds a kernel image (ELF) of the guest with one page and a disk.
pub fn kernel_with_disk() -> Vec<u8> {
    // inc word [AVAILABLE_RING + 2]; mov edi, VIRTIO_MMIO_BASE; mov dword [rdi + QUEUE_NOTIFY], 0
    let mut request = vec![0x66, 0xff, 0x04, 0x25];
    request.extend_from_slice(&(AVAILABLE_RING + 2).to_le_bytes());
    request.extend_from_slice(&load_device_address());
    request.extend_from_slice(&store_register(QUEUE_NOTIFY, 0));
    image(&code(1, &set_up_disk(), &request))
}

/// Builds a kernel image (ELF) of a guest that resets the machine through the keyboard controller.
pub fn resetting_kernel() -> Vec<u8> {
    // mov al, 0xfe; out 0x64, al
    image(&[0xb0, 0xfe, 0xe6, 0x64])
}

/// Builds a kernel image (ELF) of code that starts in kernel mode.
pub fn image(code: &[u8]) -> Vec<u8> {
    let len = code.len() as u64;
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01");
    elf.resize(16, 0);
    let entry = u64::from(LOAD);
    elf.extend_from_slice(&2_u16.to_le_bytes());
    elf.extend_from_slice(&62_u16.to_le_bytes());
    elf.extend_from_slice(&1_u32.to_le_bytes());
    elf.extend_from_slice(&entry.to_le_bytes());
    elf.extend_from_slice(&64_u64.to_le_bytes());
    elf.extend_from_slice(&0_u64.to_le_bytes());
    elf.extend_from_slice(&0_u32.to_le_bytes());
    for field in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend_from_slice(&field.to_le_bytes());
    }
    // One segment: readable, writable, executable.
    elf.extend_from_slice(&1_u32.to_le_bytes());
    elf.extend_from_slice(&7_u32.to_le_bytes());
    for field in [PAGE_SIZE as u64, entry, entry, len, len, PAGE_SIZE as u64] {
        elf.extend_from_slice(&field.to_le_bytes());
    }
    elf.resize(PAGE_SIZE, 0);
    elf.extend_from_slice(code);
    elf
}

/// Assembles the guest: `set_up` runs once before the first ring, `per_pass` before each further one.
fn code(pages: u32, set_up: &[u8], per_pass: &[u8]) -> Vec<u8> {
    // mov rsp, ENTRY_STACK; push USER_DATA; push USER_STACK; push PRIVILEGED; push USER_CODE; push user; iretq
    let entry_len = 7 + 2 + 5 + 5 + 2 + 5 + 2;
    let mut code = vec![0x48, 0xc7, 0xc4];
    code.extend_from_slice(&ENTRY_STACK.to_le_bytes());
    code.extend_from_slice(&[0x6a, USER_DATA, 0x68]);
    code.extend_from_slice(&USER_STACK.to_le_bytes());
    code.push(0x68);
    code.extend_from_slice(&PRIVILEGED.to_le_bytes());
    code.extend_from_slice(&[0x6a, USER_CODE, 0x68]);
    code.extend_from_slice(&(LOAD + entry_len).to_le_bytes());
    code.extend_from_slice(&[0x48, 0xcf]);
    code.extend_from_slice(set_up);

    // mov eax, READY; mov dx, DOORBELL_WAIT_PORT; out dx, eax
    code.push(0xb8);
    code.extend_from_slice(&READY.to_le_bytes());
    let [port_low, port_high] = DOORBELL_WAIT_PORT.to_le_bytes();
    let ring = [0x66, 0xba, port_low, port_high, 0xef];
    code.extend_from_slice(&ring);

    // pass: xor eax, eax; mov edi, PAGES; mov ecx, pages
    let pass = code.len();
    code.extend_from_slice(&[0x31, 0xc0, 0xbf]);
    code.extend_from_slice(&PAGES.to_le_bytes()[..4]);
    code.push(0xb9);
    code.extend_from_slice(&pages.to_le_bytes());
    // page: add eax, [rdi]; inc dword [rdi]; add edi, 4096; dec ecx; jnz page
    code.extend_from_slice(&[
        0x03, 0x07, 0xff, 0x07, 0x81, 0xc7, 0x00, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf2,
    ]);
    code.extend_from_slice(per_pass);
    // ring; jmp pass
    code.extend_from_slice(&ring);
    let len = code.len() + 2 - pass;
    let back = i8::try_from(len).map_or(0, i8::wrapping_neg);
    code.extend_from_slice(&[0xeb, back.to_le_bytes()[0]]);
    code
}

/// Assembles a virtio-blk driver's initialisation, with one request in the descriptor table: write the first page to
/// block [`DISK_BLOCK`]. Every entry of the available ring is zero, which names that request.
fn set_up_disk() -> Vec<u8> {
    const NEXT: u32 = 1;
    const DEVICE_WRITES: u32 = 2;
    const WRITE: u32 = 1;
    let page = u32::try_from(PAGES).unwrap_or(0);
    let page_len = u32::try_from(PAGE_SIZE).unwrap_or(0);
    let sector = u32::try_from(DISK_BLOCK).unwrap_or(0) * 8;
    let mut code = Vec::new();
    for (descriptor, (address, len, flags_and_next)) in (0..).zip([
        (REQUEST_HEADER, 16, NEXT | 1 << 16),
        (page, page_len, NEXT | 2 << 16),
        (STATUS, 1, DEVICE_WRITES),
    ]) {
        let at = DESCRIPTORS + descriptor * 16;
        code.extend_from_slice(&store(at, address));
        code.extend_from_slice(&store(at + 8, len));
        code.extend_from_slice(&store(at + 12, flags_and_next));
    }
    code.extend_from_slice(&store(REQUEST_HEADER, WRITE));
    code.extend_from_slice(&store(REQUEST_HEADER + 8, sector));
    code.extend_from_slice(&load_device_address());
    // Status; VIRTIO_F_VERSION_1; the queue's size and addresses; queue ready; driver ready (virtio 1.2 section 4.2.2).
    for (register, value) in [
        (0x70, 0x3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 0xb),
        (0x30, 0),
        (0x38, 16),
        (0x80, DESCRIPTORS),
        (0x84, 0),
        (0x90, AVAILABLE_RING),
        (0x94, 0),
        (0xa0, USED_RING),
        (0xa4, 0),
        (0x44, 1),
        (0x70, 0xf),
    ] {
        code.extend_from_slice(&store_register(register, value));
    }
    code
}

/// `mov dword [address], value`
fn store(address: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0xc7, 0x04, 0x25];
    code.extend_from_slice(&address.to_le_bytes());
    code.extend_from_slice(&value.to_le_bytes());
    code
}

/// `mov edi, VIRTIO_MMIO_BASE`
fn load_device_address() -> Vec<u8> {
    let mut code = vec![0xbf];
    code.extend_from_slice(&VIRTIO_MMIO_BASE.to_le_bytes()[..4]);
    code
}

/// `mov dword [rdi + register], value`
fn store_register(register: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0xc7, 0x87];
    code.extend_from_slice(&register.to_le_bytes());
    code.extend_from_slice(&value.to_le_bytes());
    code
}
