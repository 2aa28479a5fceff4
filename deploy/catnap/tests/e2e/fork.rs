//! Forks.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::json;

use crate::rig::{Gateway, Sandbox};

const FORKS: usize = 10;
const FILE: &str = "/home/user/file";

#[tokio::test]
async fn forks_share_state_but_not_identity_or_writes() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let origin = gateway.create_with_probe(json!({})).await;
    origin.write(&gateway, FILE, "origin\n").await;
    let hits: u64 = origin.get(&gateway, "/count").await.ok().value("hits");
    let before = origin.get(&gateway, "/identity").await.ok();

    let forks = origin.fork(&gateway, FORKS).await;
    let all: Vec<&Sandbox> = std::iter::once(&origin).chain(&forks).collect();
    let ids = all.iter().map(|sandbox| sandbox.id.clone());
    assert_eq!(distinct(ids), FORKS + 1);

    // Boot, processes and memory are shared.
    let counts = join_all(all.iter().map(|it| it.get(&gateway, "/count"))).await;
    for count in counts {
        let count: u64 = count.ok().value("hits");
        assert_eq!(count, hits + 1, "each fork counts its own requests");
    }
    let identities = join_all(all.iter().map(|it| it.get(&gateway, "/identity"))).await;
    for (sandbox, identity) in all.iter().zip(&identities) {
        for shared in ["boot", "pid"] {
            assert_eq!(
                identity.value::<String>(shared),
                before.value::<String>(shared)
            );
        }
        assert_eq!(identity.value::<String>("hostname"), sandbox.id);
    }
    // Identity and entropy are not.
    for own in ["hostname", "machine", "urandom", "getrandom"] {
        let values = identities.iter().map(|it| it.value::<String>(own));
        assert_eq!(distinct(values), FORKS + 1, "{own}");
    }
    assert_eq!(
        identities[0].value::<String>("machine"),
        before.value::<String>("machine")
    );
    let random = ["urandom", "getrandom"]
        .map(|name| identities.iter().map(move |it| it.value::<String>(name)));
    assert_eq!(distinct(random.into_iter().flatten()), 2 * (FORKS + 1));

    check_writes_are_private(&gateway, &origin, &forks).await;
    gateway.finish().await;
}

/// Writes a shared file in each fork, and asserts that no other sandbox reads that write.
async fn check_writes_are_private(gateway: &Gateway, origin: &Sandbox, forks: &[Sandbox]) {
    let text = |fork: &Sandbox| format!("fork {}\n", fork.id);
    let writes = forks
        .iter()
        .map(|fork| fork.write(gateway, FILE, text(fork)));
    join_all(writes).await;
    assert_eq!(origin.read(gateway, FILE).await.ok().body, "origin\n");
    for fork in forks {
        assert_eq!(fork.read(gateway, FILE).await.ok().body, text(fork));
    }
}

#[tokio::test]
async fn fork_refuses_the_token_of_its_origin() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let origin = gateway.create(json!({})).await;
    let fork = origin.fork(&gateway, 1).await.remove(0);
    assert_eq!(
        fork.read(&gateway, "/etc/hostname").await.ok().body,
        format!("{}\n", fork.id)
    );
    let with_old_token = fork.with_token_of(&origin);
    let reply = with_old_token.read(&gateway, "/etc/hostname").await;
    assert_eq!(reply.status, 401, "{}", reply.body);
    gateway.finish().await;
}

fn distinct(values: impl Iterator<Item = String>) -> usize {
    values.collect::<BTreeSet<_>>().len()
}
