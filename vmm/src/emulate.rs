//! Instructions of guest kernels that a host's KVM lacks.
//!
//! Where KVM interprets guest kernel mode, its interpreter gives up on some instructions with
//! `KVM_EXIT_INTERNAL_ERROR`. The monitor then reads the instruction out of guest memory, carries it out on the vCPU's
//! state and lets the guest go on: the XSAVE family first, so that vector registers of guest processes stay whole, and a
//! few small ones. An instruction it does not know either ends the machine and is named.

mod access;
mod address;
mod scalar;
mod xsave;

use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction, Mnemonic, Register};
use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;

use self::access::{Access, Fault};
use crate::memory::GuestMemory;

/// An instruction that was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmulateError {
    /// It is not one of those the monitor knows.
    #[error(
        "the guest executed `{instruction}` (bytes {bytes}) at {rip:#x}, which this host's KVM cannot do and the monitor neither"
    )]
    Unsupported {
        /// As an assembler would write it.
        instruction: String,
        /// Its bytes in hexadecimal.
        bytes: String,
        /// Where.
        rip: u64,
    },
    /// Its bytes cannot be read.
    #[error("KVM could not execute an instruction at {rip:#x}, where guest memory cannot be read")]
    Unreadable {
        /// Where.
        rip: u64,
    },
    /// KVM refused a register access.
    #[error("access vCPU registers")]
    Kvm(#[from] kvm_ioctls::Error),
}

/// How an instruction ended.
enum Outcome {
    /// Done: go on behind it.
    Done,
    /// It raises an exception at itself.
    Fault(Fault),
    /// It raises an exception behind itself.
    Trap(u8),
}

/// One instruction with all it may touch.
struct Execution<'a> {
    vcpu: &'a VcpuFd,
    memory: &'a GuestMemory,
    regs: kvm_regs,
    sregs: kvm_sregs,
    instruction: Instruction,
}

/// Carries out the instruction at which KVM gave up.
pub(crate) fn emulate(vcpu: &VcpuFd, memory: &GuestMemory) -> Result<(), EmulateError> {
    let regs = vcpu.get_regs()?;
    let sregs = vcpu.get_sregs()?;
    let bytes = fetch(memory, &regs, &sregs)?;
    let bits = if sregs.cs.l == 1 { 64 } else { 32 };
    let instruction = Decoder::with_ip(bits, &bytes, regs.rip, DecoderOptions::NONE).decode();
    let mut execution = Execution {
        vcpu,
        memory,
        regs,
        sregs,
        instruction,
    };
    match execution.execute()? {
        Some(Outcome::Done) => {
            execution.regs.rip = instruction.next_ip();
            vcpu.set_regs(&execution.regs)?;
        }
        Some(Outcome::Fault(fault)) => execution.raise(fault)?,
        Some(Outcome::Trap(vector)) => {
            execution.regs.rip = instruction.next_ip();
            vcpu.set_regs(&execution.regs)?;
            execution.inject(vector, None)?;
        }
        None => return Err(unsupported(&instruction, &bytes, regs.rip)),
    }
    Ok(())
}

/// The bytes at the instruction pointer: up to 15, fewer at the end of mapped memory.
fn fetch(
    memory: &GuestMemory,
    regs: &kvm_regs,
    sregs: &kvm_sregs,
) -> Result<Vec<u8>, EmulateError> {
    let access = Access::new(memory, sregs);
    let at = regs.rip.wrapping_add(sregs.cs.base);
    for len in [
        15,
        usize::try_from(0x1000 - (at & 0xfff)).unwrap_or(15).min(15),
    ] {
        let mut bytes = vec![0; len];
        if access.read(at, &mut bytes).is_ok() {
            return Ok(bytes);
        }
    }
    Err(EmulateError::Unreadable { rip: regs.rip })
}

fn unsupported(instruction: &Instruction, bytes: &[u8], rip: u64) -> EmulateError {
    let mut text = String::new();
    FastFormatter::new().format(instruction, &mut text);
    let len = if instruction.is_invalid() {
        bytes.len()
    } else {
        instruction.len()
    };
    let bytes = bytes
        .iter()
        .take(len)
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ");
    EmulateError::Unsupported {
        instruction: text,
        bytes,
        rip,
    }
}

// === impl Execution ===

impl Execution<'_> {
    /// `None`: an instruction that is not known here.
    fn execute(&mut self) -> Result<Option<Outcome>, EmulateError> {
        Ok(Some(match self.instruction.mnemonic() {
            Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => {
                self.save(false)?
            }
            Mnemonic::Xsavec | Mnemonic::Xsavec64 | Mnemonic::Xsaves | Mnemonic::Xsaves64 => {
                self.save(true)?
            }
            Mnemonic::Xrstor | Mnemonic::Xrstor64 | Mnemonic::Xrstors | Mnemonic::Xrstors64 => {
                self.restore()?
            }
            Mnemonic::Xgetbv => self.xgetbv()?,
            Mnemonic::Popcnt => return self.popcnt(),
            Mnemonic::Cmpxchg16b => self.cmpxchg16b(),
            Mnemonic::Stac => self.set_alignment_check(true),
            Mnemonic::Clac => self.set_alignment_check(false),
            // No exception is pending that these could report or need to clear: the guest kernel masks them.
            Mnemonic::Wait | Mnemonic::Fnclex => Outcome::Done,
            Mnemonic::Int3 => Outcome::Trap(3),
            _ => return Ok(None),
        }))
    }

    /// Linear address of the memory operand.
    fn address(&self) -> Option<u64> {
        address::linear(&self.instruction, &self.regs, &self.sregs)
    }

    fn access(&self) -> Access<'_> {
        Access::new(self.memory, &self.sregs)
    }

    fn raise(&mut self, fault: Fault) -> Result<(), EmulateError> {
        match fault {
            Fault::Page { address, code } => {
                self.sregs.cr2 = address;
                self.vcpu.set_sregs(&self.sregs)?;
                self.inject(14, Some(code))
            }
            Fault::Protection => self.inject(13, Some(0)),
        }
    }

    fn inject(&self, vector: u8, code: Option<u32>) -> Result<(), EmulateError> {
        let mut events = self.vcpu.get_vcpu_events()?;
        events.exception.injected = 1;
        events.exception.nr = vector;
        events.exception.has_error_code = u8::from(code.is_some());
        events.exception.error_code = code.unwrap_or(0);
        Ok(self.vcpu.set_vcpu_events(&events)?)
    }

    fn register(&self, register: Register) -> u64 {
        address::register(register, &self.regs, &self.sregs).unwrap_or(0)
    }
}
