//! The monitor on this machine's KVM, with the flat guest.

mod rig;

use rig::{Rig, ring};
use vmm_api::{Exit, Machine, flat, wire::DOORBELL_WAIT_PORT};

const PAGES: u32 = 64;

#[tokio::test]
async fn a_guest_boots_and_goes_on_from_where_it_was_stopped() {
    let Some(rig) = Rig::new() else { return };
    let machine = rig.boot(PAGES).await;
    for pass in 0..3 {
        machine.pause().await.unwrap();
        assert_eq!(ring(&machine).await, flat::sum(PAGES, pass));
    }
    machine.kill().await;
}

#[tokio::test]
async fn a_captured_guest_goes_on_in_another_process() {
    let Some(rig) = Rig::new() else { return };
    let machine = rig.boot(PAGES).await;
    machine.pause().await.unwrap();
    assert_eq!(ring(&machine).await, 0);
    machine.pause().await.unwrap();
    let snapshot = rig.capture(&machine).await;
    machine.kill().await;

    let machine = rig.fork(&snapshot).await;
    assert_eq!(ring(&machine).await, flat::sum(PAGES, 1));
}

#[tokio::test]
async fn a_hundred_forks_share_nothing_they_write() {
    let Some(rig) = Rig::new() else { return };
    let machine = rig.boot(PAGES).await;
    machine.pause().await.unwrap();
    let snapshot = rig.capture(&machine).await;
    machine.kill().await;

    let mut forks = Vec::new();
    for _ in 0..100 {
        forks.push(rig.fork(&snapshot).await);
    }
    // Each is at a pass of its own before any other sees its first.
    for (count, fork) in forks.iter().enumerate() {
        for pass in 0..=(count % 3) {
            assert_eq!(
                ring(fork).await,
                flat::sum(PAGES, u32::try_from(pass).unwrap()),
                "fork {count}"
            );
            fork.pause().await.unwrap();
        }
    }
    let origin = rig.fork(&snapshot).await;
    assert_eq!(ring(&origin).await, 0, "the snapshot itself has changed");
    forks.push(origin);
    for fork in forks {
        fork.kill().await;
    }
}

#[tokio::test]
async fn a_capture_holds_what_the_guest_wrote_and_nothing_else() {
    let Some(rig) = Rig::new() else { return };
    let machine = rig.boot(PAGES).await;
    machine.pause().await.unwrap();
    let snapshot = rig.capture(&machine).await;
    machine.kill().await;

    let fork = rig.fork(&snapshot).await;
    assert_eq!(
        rig.capture(&fork).await.pages(),
        Vec::<u64>::new(),
        "a fork that has not run has changed nothing"
    );
    assert_eq!(ring(&fork).await, 0);
    fork.pause().await.unwrap();
    let first = flat::PAGES / 4096;
    let written: Vec<u64> = (first..first + u64::from(PAGES)).collect();
    assert_eq!(rig.capture(&fork).await.pages(), written);
    // Twice the same, as nothing was changed by looking.
    assert_eq!(rig.capture(&fork).await.pages(), written);
}

#[tokio::test]
async fn an_image_that_was_altered_or_cut_is_refused_and_says_so() {
    let Some(rig) = Rig::new() else { return };
    let machine = rig.boot(PAGES).await;
    machine.pause().await.unwrap();
    let snapshot = rig.capture(&machine).await;
    machine.kill().await;

    let whole = snapshot.image_bytes();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let refused = rig.try_fork(&snapshot.with_image(&bytes)).await;
        // Four bytes of the header are reserved and may be anything.
        assert!(
            (12..16).contains(&at)
                || refused.is_err_and(|error| error.contains("machine image is not usable")),
            "byte {at}"
        );
        let refused = rig.try_fork(&snapshot.with_image(&whole[..at])).await;
        assert!(
            refused.is_err_and(|error| error.contains("machine image is not usable")),
            "cut at {at}"
        );
    }
}

#[tokio::test]
async fn an_instruction_that_nobody_can_do_is_named_with_its_place() {
    let Some(rig) = Rig::new() else { return };
    if !std::path::Path::new("/sys/module/kvm_pvm").exists() {
        eprintln!("SKIPPED: this host's KVM runs guest kernel mode itself");
        return;
    }
    // nop; shlx eax, ecx, edx
    let machine = rig
        .boot_image(&flat::image(&[0x90, 0xc4, 0xe2, 0x69, 0xf7, 0xc1]))
        .await;
    let mut exit = machine.exit();
    let exit = exit.wait_for(Option::is_some).await.unwrap().clone();
    let Some(Exit::Failed(why)) = exit else {
        panic!("{exit:?}")
    };
    let place = format!("{:#x}", flat::ENTRY + 1);
    assert!(
        why.contains("shlx eax,ecx,edx") && why.contains("c4 e2 69 f7 c1") && why.contains(&place),
        "{why}"
    );
}

#[tokio::test]
async fn instructions_that_kvm_lacks_are_done_by_the_monitor() {
    let Some(rig) = Rig::new() else { return };
    // mov ecx, 0xf0f0; popcnt eax, ecx; fnclex; mov dx, port; out dx, eax
    let mut code = vec![
        0xb9, 0xf0, 0xf0, 0, 0, 0xf3, 0x0f, 0xb8, 0xc1, 0xdb, 0xe2, 0x66, 0xba,
    ];
    code.extend_from_slice(&DOORBELL_WAIT_PORT.to_le_bytes());
    code.push(0xef);
    let machine = rig.boot_image(&flat::image(&code)).await;
    let mut doorbell = machine.doorbell();
    let heard = *doorbell.wait_for(Option::is_some).await.unwrap();
    assert_eq!(heard, Some(8));
}

#[tokio::test]
async fn a_monitor_whose_host_is_gone_ends() {
    let Some(rig) = Rig::new() else { return };
    let machine = rig.boot(PAGES).await;
    let pid = machine.pid();
    let mut exit = machine.exit();
    drop(machine);
    exit.wait_for(Option::is_some).await.unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
