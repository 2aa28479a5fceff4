//! Serial console: a 16550A whose output goes to a file, with a timestamp before each line.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    time::SystemTime,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vm_superio::{
    Trigger,
    serial::{NoEvents, SerialState},
};
use vmm_sys_util::eventfd::EventFd;

/// Interrupt line of the first serial port.
pub(crate) const SERIAL_IRQ: u32 = 4;
/// Maximum size of a console file; further output is dropped, so that a guest cannot fill the host's disk.
const CONSOLE_LIMIT: u64 = 16 << 20;

/// A serial port with a console file.
pub(crate) struct Serial {
    device: vm_superio::Serial<IrqTrigger, NoEvents, Console>,
}

/// Registers of a serial port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SerialRegisters {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    input: Vec<u8>,
}

struct IrqTrigger(EventFd);

impl Trigger for IrqTrigger {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

struct Console {
    file: File,
    capacity_left: u64,
    at_line_start: bool,
}

impl Console {
    fn new(file: File) -> Self {
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let mut last = [b'\n'];
        // A restored guest may continue in the middle of a line. An unreadable line counts as complete.
        let at_line_start =
            len == 0 || file.read_exact_at(&mut last, len - 1).is_err() || last == [b'\n'];
        Self {
            file,
            capacity_left: CONSOLE_LIMIT.saturating_sub(len),
            at_line_start,
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.capacity_left > 0 {
            let written = self.file.write(bytes)?;
            self.capacity_left = self.capacity_left.saturating_sub(written as u64);
        }
        Ok(())
    }
}

impl Write for Console {
    /// Writes bytes with a timestamp before each line. Guests write one byte at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start {
                let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
                self.append(format!("{now:.6} ").as_bytes())?;
            }
            self.append(part)?;
            self.at_line_start = part.ends_with(b"\n");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Serial {
    pub(crate) fn new(interrupt: EventFd, console: File) -> Self {
        Self {
            device: vm_superio::Serial::new(IrqTrigger(interrupt), Console::new(console)),
        }
    }

    pub(crate) fn restored(
        interrupt: EventFd,
        console: File,
        registers: &SerialRegisters,
    ) -> Result<Self, SerialError> {
        let state = SerialState {
            baud_divisor_low: registers.divisor[0],
            baud_divisor_high: registers.divisor[1],
            interrupt_enable: registers.interrupt_enable,
            interrupt_identification: registers.interrupt_identification,
            line_control: registers.line_control,
            line_status: registers.line_status,
            modem_control: registers.modem_control,
            modem_status: registers.modem_status,
            scratch: registers.scratch,
            in_buffer: registers.input.clone(),
        };
        let device = vm_superio::Serial::from_state(
            &state,
            IrqTrigger(interrupt),
            NoEvents,
            Console::new(console),
        )
        .map_err(|error| SerialError(format!("{error:?}")))?;
        Ok(Self { device })
    }

    pub(crate) fn registers(&self) -> SerialRegisters {
        let state = self.device.state();
        SerialRegisters {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            input: state.in_buffer,
        }
    }

    pub(crate) fn read(&mut self, offset: u16) -> u8 {
        self.device.read(u8::try_from(offset).unwrap_or(0))
    }

    pub(crate) fn write(&mut self, offset: u16, value: u8) {
        // The guest continues without console output if the file cannot be written, for instance on a full disk.
        if let Err(error) = self.device.write(u8::try_from(offset).unwrap_or(0), value) {
            tracing::debug!(error = %error_chain::chain(&error), "failed to write console");
        }
    }
}

/// Invalid registers of a serial port.
#[derive(Debug, thiserror::Error)]
#[error("failed to restore serial console: {0}")]
pub(crate) struct SerialError(String);

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn console_lines_have_timestamps_across_a_restore() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || {
            let options = File::options().read(true).append(true).open(file.path());
            Console::new(options.unwrap())
        };
        let before = Timestamp::now();
        open().write_all(b"one\ntw").unwrap();
        for byte in b"o\n\nthree" {
            open().write_all(&[*byte]).unwrap();
        }
        let mut text = String::new();
        file.reopen().unwrap().read_to_string(&mut text).unwrap();
        let lines: Vec<(Timestamp, &str)> = text
            .lines()
            .map(|line| {
                let (stamp, line) = line.split_once(' ').unwrap();
                assert_eq!(stamp.len(), "2026-11-22T01:35:11.872215Z".len());
                (stamp.parse().unwrap(), line)
            })
            .collect();
        let texts: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
        assert_eq!(texts, ["one", "two", "", "three"]);
        assert!(lines.is_sorted_by_key(|(stamp, _)| *stamp));
        assert!(lines[0].0.duration_since(before).as_secs().abs() < 60);
    }
}
