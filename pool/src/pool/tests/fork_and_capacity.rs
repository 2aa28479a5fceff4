use std::fs;

use pool_api::{
    CreateError, EnterError, Epoch, ForkError, ForkSpec, IfPaused, Node, Origin, SandboxState,
    SnapshotScope,
};
use vmm_api::fake::Fault;

use super::{Limits, MEMORY, Rig, base, id, spec};

fn child(name: &str) -> ForkSpec {
    ForkSpec {
        id: id(name),
        epoch: Epoch(1),
        access_token: None,
    }
}

#[tokio::test]
async fn children_are_the_parent_at_one_instant_and_nobody_else() {
    let rig = Rig::new().await;
    rig.create("parent").await;
    rig.say("parent", "write 3 shared").await;
    rig.say("parent", "disk-write 3 shared").await;
    let before = rig.fake.counts();
    let names: Vec<String> = (0..10).map(|n| format!("child{n}")).collect();
    let children = names.iter().map(|name| child(name)).collect();
    let born = rig.pool.fork(&id("parent"), children).await.unwrap();
    for (name, info) in names.iter().zip(born) {
        assert_eq!(info.unwrap().id, id(name));
    }
    let after = rig.fake.counts();
    assert_eq!(
        (after.captures - before.captures, after.loads - before.loads),
        (1, 10)
    );
    rig.say("parent", "write 3 parent").await;
    rig.say("parent", "disk-write 3 parent").await;
    for name in &names {
        assert_eq!(rig.say(name, "read 3").await, "shared");
        assert_eq!(rig.say(name, "disk-read 3").await, "shared");
        rig.say(name, &format!("write 3 {name}")).await;
        rig.say(name, &format!("disk-write 3 {name}")).await;
    }
    // Each goes its own way, through pauses, and outlives its parent.
    rig.pool.kill(&id("parent")).await.unwrap();
    for name in &names {
        rig.pause(name).await;
        assert_eq!(rig.say(name, "read 3").await, *name);
        assert_eq!(rig.say(name, "disk-read 3").await, *name);
    }
    let inits = rig.fake.inits();
    // A child without a token must not ask for its parent's.
    let first = inits
        .iter()
        .find(|init| init["sandboxId"] == "child0")
        .unwrap();
    assert_eq!(
        (&first["accessToken"], &first["envVars"]["COLOUR"]),
        (&"".into(), &"blue".into())
    );
    let entropies: std::collections::BTreeSet<String> = inits
        .iter()
        .map(|init| init["entropy"].to_string())
        .collect();
    assert_eq!(entropies.len(), inits.len());
    for name in &names {
        rig.pool.kill(&id(name)).await.unwrap();
    }
    assert_eq!((rig.count("snapshots"), rig.count("sandboxes")), (1, 0));
}

#[tokio::test]
async fn children_that_fail_are_told_one_by_one() {
    let rig = Rig::with(|config| {
        config.limits = Limits {
            memory: 3 * MEMORY,
            machines: 9,
        }
    })
    .await;
    rig.create("parent").await;
    let born = rig
        .pool
        .fork(
            &id("parent"),
            vec![child("a"), child("parent"), child("b"), child("c")],
        )
        .await
        .unwrap();
    assert!(matches!(&born[1], Err(CreateError::Exists(_))));
    let alive = born.iter().filter(|born| born.is_ok()).count();
    let full = born
        .iter()
        .filter(|born| matches!(born, Err(CreateError::NoRoom { .. })))
        .count();
    assert_eq!((alive, full), (2, 1));
    assert_eq!(rig.state("parent").await, SandboxState::Running);
    rig.pause("parent").await;
    assert!(matches!(
        rig.pool.fork(&id("parent"), vec![child("d")]).await,
        Err(ForkError::Paused(_))
    ));
    assert!(matches!(
        rig.pool.fork(&id("x"), vec![child("d")]).await,
        Err(ForkError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_full_host_says_so_and_a_kill_makes_room() {
    let rig = Rig::with(|config| {
        config.limits = Limits {
            memory: 2 * MEMORY,
            machines: 9,
        }
    })
    .await;
    rig.create("a").await;
    rig.pause("a").await;
    rig.create("b").await;
    rig.create("c").await;
    let Err(EnterError::NoRoom { diagnostic }) = rig.pool.enter(&id("a"), IfPaused::Wake).await
    else {
        panic!()
    };
    assert_eq!(
        diagnostic,
        "4 MiB of guest memory are needed, 0 of 8 MiB are free"
    );
    assert!(matches!(
        rig.pool.create(spec("d")).await,
        Err(CreateError::NoRoom { .. })
    ));
    assert_eq!(rig.state("a").await, SandboxState::Paused);
    rig.pool.kill(&id("b")).await.unwrap();
    rig.say("a", "hello").await;
}

#[tokio::test]
async fn a_snapshot_asked_for_can_be_forked_until_it_is_given_up() {
    let rig = Rig::new().await;
    rig.create("a").await;
    rig.say("a", "write 4 then").await;
    let snapshot = rig
        .pool
        .snapshot(&id("a"), SnapshotScope::Full)
        .await
        .unwrap()
        .id;
    rig.say("a", "write 4 now").await;
    rig.pause("a").await;
    let rig = rig.crash().await;
    let mut fork = spec("b");
    fork.origin = Origin::Snapshot(snapshot.clone());
    rig.pool.create(fork).await.unwrap();
    assert_eq!(rig.say("b", "read 4").await, "then");
    assert_eq!(rig.say("a", "read 4").await, "now");
    rig.pool.kill(&id("a")).await.unwrap();
    rig.pool.kill(&id("b")).await.unwrap();
    rig.pool.release_snapshot(&snapshot).await.unwrap();
    let mut late = spec("c");
    late.origin = Origin::Snapshot(snapshot);
    assert!(matches!(
        rig.pool.create(late).await,
        Err(CreateError::NoTemplate(_))
    ));
}

#[tokio::test]
async fn a_template_is_built_again_only_when_its_artefacts_changed() {
    let rig = Rig::new().await;
    let first = rig.pool.templates().await.remove(0);
    let boots = rig.fake.counts().boots;
    let rig = rig.crash().await;
    let same = rig.pool.build_template(&base()).await.unwrap();
    assert_eq!(
        (same.snapshot, rig.fake.counts().boots),
        (first.snapshot.clone(), boots)
    );
    // Touched, and still the same bytes.
    fs::write(rig.dir.path().join("kernel"), "kernel").unwrap();
    rig.pool.build_template(&base()).await.unwrap();
    assert_eq!(rig.fake.counts().boots, boots);
    fs::write(rig.dir.path().join("kernel"), "another").unwrap();
    let other = rig.pool.build_template(&base()).await.unwrap();
    assert_ne!(other.snapshot, first.snapshot);
    assert_eq!(
        (
            rig.fake.counts().boots,
            rig.count("snapshots"),
            rig.fake.counts().live
        ),
        (boots + 1, 1, 0)
    );
    fs::remove_file(rig.dir.path().join("kernel")).unwrap();
    let error = rig.pool.build_template(&base()).await.unwrap_err();
    assert!(matches!(error, pool_api::TemplateError::NoArtefacts { .. }));
    assert!(super::source_text(&error).contains("kernel"));
}

#[tokio::test]
async fn blanks_are_kept_ahead_and_a_failed_one_is_told() {
    let rig = Rig::new().await;
    while rig.pool.blanks() == 0 {
        tokio::task::yield_now().await;
    }
    let before = rig.fake.counts().blanks;
    rig.create("a").await;
    while rig.pool.blanks() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.fake.counts().blanks, before + 1);
    let none = Rig::with(|config| config.blanks.clear()).await;
    none.fake.fail_next(Fault::Spawn);
    let Err(CreateError::Failed { source, .. }) = none.pool.create(spec("a")).await else {
        panic!()
    };
    assert!(super::source_text(&*source).contains("spawn monitor"));
    none.create("a").await;
}
