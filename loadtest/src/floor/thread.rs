//! Cost of system calls, thread hand-offs and processes.

use std::{process::Command, thread};

use rustix::event::{EventfdFlags, eventfd};

use crate::{histogram::Histogram, sys};

/// Measures the cheapest system call, in batches of a hundred.
pub(super) fn syscall() -> anyhow::Result<Histogram> {
    let mut histogram = Histogram::new()?;
    for _ in 0..10_000 {
        let started = std::time::Instant::now();
        for _ in 0..100 {
            std::hint::black_box(rustix::process::getppid());
        }
        histogram.add(started.elapsed() / 100);
    }
    Ok(histogram)
}

/// CPU of the other thread of a hand-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// The CPU of the measuring thread.
    SameCpu,
    /// Another CPU.
    OtherCpu,
}

/// Measures waking a thread through an eventfd until it wakes this one.
pub(super) fn handoff(placement: Placement) -> anyhow::Result<Histogram> {
    let (request, response) = (
        eventfd(0, EventfdFlags::CLOEXEC)?,
        eventfd(0, EventfdFlags::CLOEXEC)?,
    );
    const ROUNDS: u32 = 5_000;
    thread::scope(|scope| {
        let other = scope.spawn(|| -> anyhow::Result<()> {
            sys::pin(usize::from(placement == Placement::OtherCpu))?;
            for _ in 0..ROUNDS {
                rustix::io::read(&request, &mut [0; 8])?;
                rustix::io::write(&response, &1_u64.to_ne_bytes())?;
            }
            Ok(())
        });
        let measuring = scope.spawn(|| {
            sys::pin(0)?;
            Histogram::measure(ROUNDS, || {
                rustix::io::write(&request, &1_u64.to_ne_bytes())?;
                rustix::io::read(&response, &mut [0; 8])?;
                Ok(())
            })
        });
        other
            .join()
            .map_err(|_| anyhow::anyhow!("the other thread panicked"))??;
        measuring
            .join()
            .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
    })
}

/// Measures starting `/bin/true` and waiting for its exit.
pub(super) fn spawn() -> anyhow::Result<Histogram> {
    Histogram::measure(200, || {
        anyhow::ensure!(
            Command::new("/bin/true").status()?.success(),
            "/bin/true failed"
        );
        Ok(())
    })
}
