//! The monitor on the KVM of this machine, with the flat guest.

mod contract;
mod disk;
mod fixture;

use std::process::Command;

use fixture::Fixture;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vmm_api::{Exit, flat, platform::DOORBELL_WAIT_PORT};

const PAGES: u32 = 64;

#[tokio::test]
async fn hundred_forks_share_no_writes() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let snapshot = fixture.snapshot(PAGES).await;

    let mut forks = Vec::new();
    for _ in 0..100 {
        forks.push(fixture.fork(&snapshot).await);
    }
    // Fork n runs n % 3 + 1 passes before fork n + 1 runs its first.
    for (number, fork) in forks.iter_mut().enumerate() {
        for pass in 0..=(number % 3) {
            assert_eq!(
                fork.next_ring().await,
                flat::sum(PAGES, u32::try_from(pass).unwrap()),
                "fork {number}"
            );
            fork.machine.pause().await.unwrap();
        }
    }
    let mut origin = fixture.fork(&snapshot).await;
    assert_eq!(origin.next_ring().await, 0, "the snapshot changed");
    forks.push(origin);
    for fork in forks {
        fork.machine.kill().await;
    }
}

#[tokio::test]
async fn image_altered_or_truncated_anywhere_is_refused() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let snapshot = fixture.snapshot(PAGES).await;

    let valid = snapshot.image_bytes();
    for at in (0..valid.len()).step_by(valid.len() / 40) {
        let mut bytes = valid.clone();
        bytes[at] ^= 0x10;
        let refused = fixture.try_fork(&snapshot.with_image(&bytes)).await;
        // Four bytes of the header are reserved and ignored.
        assert!(
            (12..16).contains(&at)
                || refused.is_err_and(|error| error.contains("invalid machine image")),
            "byte {at}"
        );
        let refused = fixture.try_fork(&snapshot.with_image(&valid[..at])).await;
        assert!(
            refused.is_err_and(|error| error.contains("invalid machine image")),
            "truncated at {at}"
        );
    }
}

#[tokio::test]
async fn unsupported_instruction_reports_bytes_and_rip() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    if !std::path::Path::new("/sys/module/kvm_pvm").exists() {
        eprintln!("SKIPPED: the KVM of this machine runs guest kernel mode natively");
        return;
    }
    // nop; shlx eax, ecx, edx
    let guest = fixture
        .boot_image(&flat::image(&[0x90, 0xc4, 0xe2, 0x69, 0xf7, 0xc1]))
        .await;
    let mut exit = guest.machine.exit();
    let exit = exit.wait_for(Option::is_some).await.unwrap().clone();
    let Some(Exit::Failed(error)) = exit else {
        panic!("{exit:?}")
    };
    let rip = format!("{:#x}", flat::ENTRY + 1);
    assert!(
        error.contains("shlx eax,ecx,edx")
            && error.contains("c4 e2 69 f7 c1")
            && error.contains(&rip),
        "{error}"
    );
}

#[tokio::test]
async fn instructions_missing_in_kvm_are_emulated() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    // mov ecx, 0xf0f0; popcnt eax, ecx; fnclex; mov dx, port; out dx, eax
    let mut code = vec![
        0xb9, 0xf0, 0xf0, 0, 0, 0xf3, 0x0f, 0xb8, 0xc1, 0xdb, 0xe2, 0x66, 0xba,
    ];
    code.extend_from_slice(&DOORBELL_WAIT_PORT.to_le_bytes());
    code.push(0xef);
    let mut guest = fixture.boot_image(&flat::image(&code)).await;
    let ring = *guest.doorbell.wait_for(Option::is_some).await.unwrap();
    assert_eq!(ring, Some(8));
}

#[test]
fn monitor_exits_when_its_host_is_gone() {
    let (host, monitor) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_catnap-vmm"))
        .stdin(monitor)
        .spawn()
        .unwrap();
    assert_eq!(process.try_wait().unwrap(), None);
    drop(host);
    assert!(process.wait().unwrap().success());
}
