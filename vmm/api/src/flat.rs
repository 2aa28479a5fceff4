//! The flat guest: the smallest guest that does real work, for tests and benchmarks.
//!
//! It runs in user mode, which is native wherever KVM is, with I/O privilege, so that it can ring the doorbell
//! ([`crate::wire::DOORBELL_WAIT_PORT`]). It has a word in each of its pages, zero to begin with. It rings [`READY`];
//! then, each time it is resumed, it adds up all words, adds one to each, and rings the sum.

use crate::{PAGE_SIZE, wire::DOORBELL_WAIT_PORT};

/// What it rings first.
pub const READY: u32 = 0xc0de_0001;
/// Where its pages begin, in guest memory.
pub const PAGES: u64 = 0x40_0000;

const LOAD: u32 = 0x10_0000;
const ENTRY_STACK: u32 = 0x8_0000;
const USER_STACK: u32 = 0x9_0000;
/// Selectors and flags of user mode: the boot protocol's tables have them.
const USER_DATA: u8 = 0x2b;
const USER_CODE: u8 = 0x33;
const PRIVILEGED: u32 = 0x3002;

/// What the guest rings at its `pass`-th resume, counted from 0.
pub fn sum(pages: u32, pass: u32) -> u32 {
    pages.wrapping_mul(pass)
}

/// A kernel image (ELF) of the guest with so many pages.
pub fn kernel(pages: u32) -> Vec<u8> {
    image(&code(pages))
}

/// Where the code of an [`image`] begins, in guest memory.
pub const ENTRY: u64 = LOAD as u64;

/// A kernel image (ELF) of code that begins in kernel mode.
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

fn code(pages: u32) -> Vec<u8> {
    let user = |stub: u32| LOAD + stub;
    // mov rsp, ENTRY_STACK; push USER_DATA; push USER_STACK; push PRIVILEGED; push USER_CODE; push user; iretq
    let stub_len = 7 + 2 + 5 + 5 + 2 + 5 + 2;
    let mut code = vec![0x48, 0xc7, 0xc4];
    code.extend_from_slice(&ENTRY_STACK.to_le_bytes());
    code.extend_from_slice(&[0x6a, USER_DATA, 0x68]);
    code.extend_from_slice(&USER_STACK.to_le_bytes());
    code.push(0x68);
    code.extend_from_slice(&PRIVILEGED.to_le_bytes());
    code.extend_from_slice(&[0x6a, USER_CODE, 0x68]);
    code.extend_from_slice(&user(stub_len).to_le_bytes());
    code.extend_from_slice(&[0x48, 0xcf]);

    // mov eax, READY; mov dx, port; out dx, eax
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
    // ring; jmp pass
    code.extend_from_slice(&ring);
    let back = i8::try_from(pass).unwrap_or(0) - i8::try_from(code.len() + 2).unwrap_or(0);
    code.extend_from_slice(&[0xeb, back.to_le_bytes()[0]]);
    code
}
