//! System calls, hand-offs between threads, processes.

use std::{process::Command, thread};

use rustix::event::{EventfdFlags, eventfd};

use crate::{record::Record, sys};

/// The cheapest system call, a hundred at a time.
pub(super) fn syscall() -> anyhow::Result<Record> {
    let mut record = Record::new()?;
    for _ in 0..10_000 {
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            std::hint::black_box(rustix::process::getppid());
        }
        record.add(begun.elapsed() / 100);
    }
    Ok(record)
}

/// Waking a thread by an event descriptor and being woken by it.
pub(super) fn handoff(same_cpu: bool) -> anyhow::Result<Record> {
    let (there, back) = (
        eventfd(0, EventfdFlags::CLOEXEC)?,
        eventfd(0, EventfdFlags::CLOEXEC)?,
    );
    const ROUNDS: u32 = 5_000;
    thread::scope(|scope| {
        let other = scope.spawn(|| -> anyhow::Result<()> {
            sys::pin(usize::from(!same_cpu))?;
            for _ in 0..ROUNDS {
                rustix::io::read(&there, &mut [0; 8])?;
                rustix::io::write(&back, &1_u64.to_ne_bytes())?;
            }
            Ok(())
        });
        let mine = scope.spawn(|| {
            sys::pin(0)?;
            Record::of(ROUNDS, || {
                rustix::io::write(&there, &1_u64.to_ne_bytes())?;
                rustix::io::read(&back, &mut [0; 8])?;
                Ok(())
            })
        });
        other
            .join()
            .map_err(|_| anyhow::anyhow!("the other thread panicked"))??;
        mine.join()
            .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
    })
}

/// Starting the smallest program there is and waiting for its end.
pub(super) fn spawn() -> anyhow::Result<Record> {
    Record::of(200, || {
        anyhow::ensure!(
            Command::new("/bin/true").status()?.success(),
            "/bin/true failed"
        );
        Ok(())
    })
}
