//! State of a vCPU.
//!
//! It is saved in this order: MP state first (reading it makes KVM process pending INIT and SIPI), then registers,
//! extended state, local APIC, MSRs, and events last (the other reads may change them). It is restored in this order:
//! CPUID, MP state, special registers, registers, XCRs, extended state, debug registers, local APIC, MSRs (the TSC
//! deadline after the timer mode, which the local APIC sets), events. Every failure fails the operation.

use kvm_bindings::{
    CpuId, KVM_VCPUEVENT_VALID_PAYLOAD, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use crate::sys::kvm::set_xsave;

const TSC: u32 = 0x10;
const TSC_DEADLINE: u32 = 0x6e0;

/// MSRs that KVM lists and reads, but refuses to set to the value read on hosts that interpret guest kernel mode
/// (determined by experiment). They are the host's own or constant.
const READ_ONLY: [u32; 10] = [
    0x0,
    0x1,
    0x17,
    0xfe,
    0x179,
    0xda0,
    0xc001_0010,
    0xc001_0055,
    0xc001_0112,
    0xc001_0113,
];

/// State of one vCPU.
#[derive(Serialize, Deserialize)]
pub(crate) struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xcrs: kvm_xcrs,
    xsave: kvm_xsave,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// Failure to save or restore the state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("failed to {0}")]
    Kvm(&'static str, #[source] kvm_ioctls::Error),
    #[error("KVM refused to set MSR {index:#x} to {value:#x}")]
    Msr { index: u32, value: u64 },
    #[error("KVM refused to read MSR {0:#x}, which it lists")]
    MsrUnreadable(u32),
    #[error("{count} {kind} exceed the limit of KVM")]
    TooMany { kind: &'static str, count: usize },
}

fn kvm_context<T>(
    operation: &'static str,
    result: Result<T, kvm_ioctls::Error>,
) -> Result<T, StateError> {
    result.map_err(|error| StateError::Kvm(operation, error))
}

impl VcpuState {
    /// Saves the state of a stopped vCPU.
    pub(crate) fn save(vcpu: &VcpuFd, msr_indices: &[u32]) -> Result<Self, StateError> {
        let mp_state = kvm_context("get MP state", vcpu.get_mp_state())?;
        let regs = kvm_context("get registers", vcpu.get_regs())?;
        let sregs = kvm_context("get special registers", vcpu.get_sregs())?;
        let xcrs = kvm_context("get extended control registers", vcpu.get_xcrs())?;
        let xsave = kvm_context("get extended state", vcpu.get_xsave())?;
        let debug = kvm_context("get debug registers", vcpu.get_debug_regs())?;
        let lapic = kvm_context("get local APIC", vcpu.get_lapic())?;
        let cpuid = kvm_context(
            "get CPUID",
            vcpu.get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES),
        )?
        .as_slice()
        .to_vec();
        let msrs = get_msrs(vcpu, msr_indices)?;
        let events = kvm_context("get events", vcpu.get_vcpu_events())?;
        Ok(Self {
            cpuid,
            mp_state,
            regs,
            sregs,
            xcrs,
            xsave,
            debug,
            lapic,
            msrs,
            events,
        })
    }

    /// Restores the state of a vCPU that has not run.
    pub(crate) fn restore(&self, vcpu: &VcpuFd) -> Result<(), StateError> {
        let cpuid = CpuId::from_entries(&self.cpuid).map_err(|_| StateError::TooMany {
            kind: "CPUID entries",
            count: self.cpuid.len(),
        })?;
        kvm_context("set CPUID", vcpu.set_cpuid2(&cpuid))?;
        kvm_context("set MP state", vcpu.set_mp_state(self.mp_state))?;
        kvm_context("set special registers", vcpu.set_sregs(&self.sregs))?;
        kvm_context("set registers", vcpu.set_regs(&self.regs))?;
        kvm_context("set extended control registers", vcpu.set_xcrs(&self.xcrs))?;
        kvm_context("set extended state", set_xsave(vcpu, &self.xsave))?;
        kvm_context("set debug registers", vcpu.set_debug_regs(&self.debug))?;
        kvm_context("set local APIC", vcpu.set_lapic(&self.lapic))?;
        self.restore_msrs(vcpu)?;
        let mut events = self.events;
        // Payloads require a capability that is not enabled.
        events.flags &= !KVM_VCPUEVENT_VALID_PAYLOAD;
        kvm_context("set events", vcpu.set_vcpu_events(&events))
    }

    fn restore_msrs(&self, vcpu: &VcpuFd) -> Result<(), StateError> {
        let is_deadline = |entry: &&kvm_msr_entry| entry.index == TSC_DEADLINE;
        let settable = self
            .msrs
            .iter()
            .filter(|entry| !READ_ONLY.contains(&entry.index));
        let first: Vec<_> = settable
            .clone()
            .filter(|entry| !is_deadline(entry))
            .copied()
            .collect();
        set_msrs(vcpu, &first)?;
        let tsc = read_msr(vcpu, TSC)?;
        let last: Vec<_> = settable
            .filter(is_deadline)
            .map(|entry| self.adjust_deadline(*entry, tsc))
            .collect();
        set_msrs(vcpu, &last)
    }

    /// Converts the timer's deadline to the guest's current TSC. If KVM does not virtualise the TSC, setting it had no
    /// effect, and the deadline moves by the difference of the host's counter; otherwise by the time since it was set.
    fn adjust_deadline(&self, mut entry: kvm_msr_entry, tsc: u64) -> kvm_msr_entry {
        let saved = self
            .msrs
            .iter()
            .find(|entry| entry.index == TSC)
            .map_or(tsc, |entry| entry.data);
        if entry.data != 0 {
            entry.data = tsc.wrapping_add(entry.data.saturating_sub(saved)).max(1);
        }
        entry
    }
}

fn get_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, StateError> {
    let mut entries = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let request: Vec<_> = rest
            .iter()
            .map(|&index| kvm_msr_entry {
                index,
                ..kvm_msr_entry::default()
            })
            .collect();
        let mut msrs = Msrs::from_entries(&request).map_err(|_| StateError::TooMany {
            kind: "MSRs",
            count: request.len(),
        })?;
        let count = kvm_context("get MSRs", vcpu.get_msrs(&mut msrs))?;
        entries.extend_from_slice(&msrs.as_slice()[..count]);
        match rest.get(count..) {
            Some([]) | None => break,
            // KVM stops at an MSR that it refuses to read, such as those of features that the guest does not have.
            Some([refused, after @ ..]) if is_optional(*refused) => rest = after,
            Some([refused, ..]) => return Err(StateError::MsrUnreadable(*refused)),
        }
    }
    Ok(entries)
}

/// Returns whether an MSR belongs to an optional feature, such as performance counters, machine check banks, nested
/// virtualisation, SMM or speculation control. KVM lists these for every guest; guests without the feature do not use
/// them.
fn is_optional(index: u32) -> bool {
    // Every guest depends on TSC, APIC base, SYSENTER, PAT, EFER, STAR to KERNEL_GS_BASE, and the KVM clocks.
    !matches!(index, TSC | 0x1b | 0x174..=0x176 | 0x277 | 0xc000_0080..=0xc000_0084 | 0xc000_0100..=0xc000_0103 | 0x4b56_4d00 | 0x4b56_4d01)
}

fn set_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), StateError> {
    if entries.is_empty() {
        return Ok(());
    }
    let msrs = Msrs::from_entries(entries).map_err(|_| StateError::TooMany {
        kind: "MSRs",
        count: entries.len(),
    })?;
    let count = kvm_context("set MSRs", vcpu.set_msrs(&msrs))?;
    match entries.get(count) {
        None => Ok(()),
        Some(refused) => Err(StateError::Msr {
            index: refused.index,
            value: refused.data,
        }),
    }
}

fn read_msr(vcpu: &VcpuFd, index: u32) -> Result<u64, StateError> {
    match get_msrs(vcpu, &[index])?.first() {
        Some(entry) => Ok(entry.data),
        None => Err(StateError::MsrUnreadable(index)),
    }
}
