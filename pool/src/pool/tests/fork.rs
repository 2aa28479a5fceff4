//! Forks of a running sandbox. Specification: "Lifecycle of sandboxes".

use pool_api::{CreateError, Epoch, ForkError, ForkSpec, Node, SandboxState};

use super::{Limits, MEMORY, Rig, id};

fn child(name: &str) -> ForkSpec {
    ForkSpec {
        id: id(name),
        epoch: Epoch(1),
        access_token: None,
    }
}

#[tokio::test]
async fn forks_share_the_past_and_nothing_else() {
    let rig = Rig::new().await;
    rig.create("parent").await;
    rig.say("parent", "write 3 shared").await;
    rig.say("parent", "disk-write 3 shared").await;
    let before = rig.fake.counts();
    let names: Vec<String> = (0..10).map(|n| format!("child{n}")).collect();
    let children = names.iter().map(|name| child(name)).collect();
    let outcomes = rig.pool.fork(&id("parent"), children).await.unwrap();
    for (name, info) in names.iter().zip(outcomes) {
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
    // Children diverge across pauses and outlive their parent.
    rig.pool.kill(&id("parent")).await.unwrap();
    for name in &names {
        rig.pause(name).await;
        assert_eq!(rig.say(name, "read 3").await, *name);
        assert_eq!(rig.say(name, "disk-read 3").await, *name);
    }
    let inits = rig.fake.inits();
    // A child without a token must not inherit its parent's.
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
async fn fork_reports_each_failed_child() {
    let rig = Rig::with(|config| {
        config.limits = Limits {
            memory: 3 * MEMORY,
            machines: 9,
        }
    })
    .await;
    rig.create("parent").await;
    let outcomes = rig
        .pool
        .fork(
            &id("parent"),
            vec![child("a"), child("parent"), child("b"), child("c")],
        )
        .await
        .unwrap();
    assert!(matches!(&outcomes[1], Err(CreateError::Exists(_))));
    let running = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let full = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(CreateError::NoRoom { .. })))
        .count();
    assert_eq!((running, full), (2, 1));
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
