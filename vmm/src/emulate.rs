//! Emulator of guest kernel instructions that the host's KVM lacks.
//!
//! A KVM that interprets guest kernel mode exits with `KVM_EXIT_INTERNAL_ERROR` at an instruction that it does not
//! implement. The monitor then reads the instruction from guest memory, executes it on the vCPU's state and resumes the
//! guest: the XSAVE family, which preserves the vector registers of guest processes, and a few scalar instructions. An
//! instruction that the monitor does not implement either ends the machine with an error that names it.

mod access;
mod address;
mod scalar;
mod xsave;

use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction, Mnemonic, Register};
use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;

use self::{
    access::{Access, Fault},
    xsave::Layout,
};
use crate::memory::GuestMemory;

/// Failure to emulate an instruction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmulateError {
    /// The monitor does not implement the instruction.
    #[error(
        "unsupported instruction `{instruction}` (bytes {bytes}) at {rip:#x}: neither this host's KVM nor the monitor implements it"
    )]
    Unsupported {
        /// The instruction in assembler syntax.
        instruction: String,
        /// The bytes in hexadecimal.
        bytes: String,
        /// The instruction pointer.
        rip: u64,
    },
    /// The instruction's bytes cannot be read.
    #[error("failed to read the instruction at {rip:#x} from guest memory")]
    Unreadable {
        /// The instruction pointer.
        rip: u64,
    },
    /// A KVM call failed.
    #[error("failed to access vCPU registers")]
    Kvm(#[from] kvm_ioctls::Error),
}

/// Outcome of an instruction.
enum Outcome {
    /// The instruction completed; execution continues after it.
    Done,
    /// It raises a fault: the exception returns to the instruction.
    Fault(Fault),
    /// It raises a trap: the exception returns to the next instruction.
    Trap(u8),
}

/// An instruction and the state on which it operates.
struct Execution<'a> {
    vcpu: &'a VcpuFd,
    memory: &'a GuestMemory,
    regs: kvm_regs,
    sregs: kvm_sregs,
    instruction: Instruction,
}

/// Emulates the instruction at the vCPU's instruction pointer.
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

/// Reads up to 15 bytes at the instruction pointer, fewer at the end of mapped memory.
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
    /// Executes the instruction; `None` if it is not implemented.
    fn execute(&mut self) -> Result<Option<Outcome>, EmulateError> {
        Ok(Some(match self.instruction.mnemonic() {
            Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => {
                self.save(Layout::Standard)?
            }
            Mnemonic::Xsavec | Mnemonic::Xsavec64 | Mnemonic::Xsaves | Mnemonic::Xsaves64 => {
                self.save(Layout::Compacted)?
            }
            Mnemonic::Xrstor | Mnemonic::Xrstor64 | Mnemonic::Xrstors | Mnemonic::Xrstors64 => {
                self.restore()?
            }
            Mnemonic::Xgetbv => self.xgetbv()?,
            Mnemonic::Popcnt => return self.popcnt(),
            Mnemonic::Cmpxchg16b => self.cmpxchg16b(),
            Mnemonic::Stac => self.set_alignment_check(true),
            Mnemonic::Clac => self.set_alignment_check(false),
            // The guest kernel masks x87 exceptions, so none is pending that these would report or clear.
            Mnemonic::Wait | Mnemonic::Fnclex => Outcome::Done,
            Mnemonic::Int3 => Outcome::Trap(3),
            _ => return Ok(None),
        }))
    }

    /// Returns the linear address of the memory operand.
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
