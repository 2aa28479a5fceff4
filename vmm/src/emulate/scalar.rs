//! Scalar instructions.

use iced_x86::{OpKind, Register};

use super::{EmulateError, Execution, Outcome, access::Fault};

const STATUS_FLAGS: u64 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 11;
const ZERO: u64 = 1 << 6;
const ALIGNMENT_CHECK: u64 = 1 << 18;

impl Execution<'_> {
    pub(super) fn popcnt(&mut self) -> Result<Option<Outcome>, EmulateError> {
        let size = self.instruction.op0_register().size();
        let source = match self.instruction.op1_kind() {
            OpKind::Register => self.register(self.instruction.op1_register()),
            _ => {
                let Some(at) = self.address() else {
                    return Ok(None);
                };
                let mut bytes = [0; 8];
                let Some(part) = bytes.get_mut(..size) else {
                    return Ok(None);
                };
                if let Err(fault) = self.access().read(at, part) {
                    return Ok(Some(Outcome::Fault(fault)));
                }
                u64::from_le_bytes(bytes)
            }
        };
        let target = self.instruction.op0_register();
        let Some(register) = self.register_mut(target) else {
            return Ok(None);
        };
        let count = u64::from(source.count_ones());
        // A 32-bit result clears the upper half of the register; a 16-bit one preserves the other bits.
        *register = if size == 2 {
            *register & !0xffff | count
        } else {
            count
        };
        self.regs.rflags &= !STATUS_FLAGS;
        if source == 0 {
            self.regs.rflags |= ZERO;
        }
        Ok(Some(Outcome::Done))
    }

    /// Executes CMPXCHG16B, not atomically against other vCPUs: `clearcpuid=cx16` keeps guest kernels from using it.
    pub(super) fn cmpxchg16b(&mut self) -> Outcome {
        let Some(at) = self.address() else {
            return Outcome::Fault(Fault::Protection);
        };
        if at % 16 != 0 {
            return Outcome::Fault(Fault::Protection);
        }
        let mut bytes = [0; 16];
        if let Err(fault) = self.access().read(at, &mut bytes) {
            return Outcome::Fault(fault);
        }
        let current = u128::from_le_bytes(bytes);
        let expected = u128::from(self.regs.rdx) << 64 | u128::from(self.regs.rax);
        let replacement = u128::from(self.regs.rcx) << 64 | u128::from(self.regs.rbx);
        let matches = current == expected;
        let result = if matches { replacement } else { current };
        if let Err(fault) = self.access().write(at, &result.to_le_bytes()) {
            return Outcome::Fault(fault);
        }
        if matches {
            self.regs.rflags |= ZERO;
        } else {
            self.regs.rflags &= !ZERO;
            let [low, high] = [current & u128::from(u64::MAX), current >> 64]
                .map(|half| u64::try_from(half).unwrap_or(0));
            (self.regs.rax, self.regs.rdx) = (low, high);
        }
        Outcome::Done
    }

    pub(super) fn set_alignment_check(&mut self, on: bool) -> Outcome {
        if on {
            self.regs.rflags |= ALIGNMENT_CHECK;
        } else {
            self.regs.rflags &= !ALIGNMENT_CHECK;
        }
        Outcome::Done
    }

    fn register_mut(&mut self, register: Register) -> Option<&mut u64> {
        let regs = &mut self.regs;
        Some(match register.full_register() {
            Register::RAX => &mut regs.rax,
            Register::RCX => &mut regs.rcx,
            Register::RDX => &mut regs.rdx,
            Register::RBX => &mut regs.rbx,
            Register::RSP => &mut regs.rsp,
            Register::RBP => &mut regs.rbp,
            Register::RSI => &mut regs.rsi,
            Register::RDI => &mut regs.rdi,
            Register::R8 => &mut regs.r8,
            Register::R9 => &mut regs.r9,
            Register::R10 => &mut regs.r10,
            Register::R11 => &mut regs.r11,
            Register::R12 => &mut regs.r12,
            Register::R13 => &mut regs.r13,
            Register::R14 => &mut regs.r14,
            Register::R15 => &mut regs.r15,
            _ => return None,
        })
    }
}
