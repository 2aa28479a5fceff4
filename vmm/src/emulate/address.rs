//! Addresses of memory operands.

use iced_x86::{Instruction, OpKind, Register};
use kvm_bindings::{kvm_regs, kvm_sregs};

/// Returns the linear address of the instruction's memory operand, if it has one.
pub(super) fn linear(instruction: &Instruction, regs: &kvm_regs, sregs: &kvm_sregs) -> Option<u64> {
    let operand = (0..instruction.op_count())
        .find(|&operand| instruction.op_kind(operand) == OpKind::Memory)?;
    instruction.virtual_address(operand, 0, |name, _, _| register(name, regs, sregs))
}

/// Returns the value of a register, or the base of a segment register.
pub(super) fn register(name: Register, regs: &kvm_regs, sregs: &kvm_sregs) -> Option<u64> {
    if name.is_segment_register() {
        return Some(match name {
            Register::FS => sregs.fs.base,
            Register::GS => sregs.gs.base,
            Register::SS => sregs.ss.base,
            Register::DS => sregs.ds.base,
            Register::ES => sregs.es.base,
            _ => sregs.cs.base,
        });
    }
    let full = match name.full_register() {
        Register::RAX => regs.rax,
        Register::RCX => regs.rcx,
        Register::RDX => regs.rdx,
        Register::RBX => regs.rbx,
        Register::RSP => regs.rsp,
        Register::RBP => regs.rbp,
        Register::RSI => regs.rsi,
        Register::RDI => regs.rdi,
        Register::R8 => regs.r8,
        Register::R9 => regs.r9,
        Register::R10 => regs.r10,
        Register::R11 => regs.r11,
        Register::R12 => regs.r12,
        Register::R13 => regs.r13,
        Register::R14 => regs.r14,
        Register::R15 => regs.r15,
        _ => return None,
    };
    Some(match name.size() {
        4 => full & 0xffff_ffff,
        2 => full & 0xffff,
        _ => full,
    })
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    #[test]
    fn linear_address_adds_segment_base_index_displacement() {
        let regs = kvm_regs {
            rdi: 0x1000,
            rcx: 3,
            ..kvm_regs::default()
        };
        let mut sregs = kvm_sregs::default();
        sregs.gs.base = 0x7000_0000;
        // xsave64 gs:[rdi+rcx*8+0x40]
        let bytes = [0x65, 0x48, 0x0f, 0xae, 0x64, 0xcf, 0x40];
        let instruction = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).decode();
        assert_eq!(linear(&instruction, &regs, &sregs), Some(0x7000_1058));
    }
}
