//! Forks.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::json;

use crate::rig::{Gateway, Sandbox};

const CHILDREN: usize = 10;

#[tokio::test]
async fn forks_share_what_was_and_nothing_that_comes() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let origin = gateway.probed(json!({})).await;
    origin
        .write(&gateway, "/home/user/file", "of the origin\n")
        .await;
    let hits = origin
        .get(&gateway, "/count")
        .await
        .ok()
        .value::<u64>("hits");
    let before = origin.get(&gateway, "/identity").await.ok();

    let children = origin.fork(&gateway, CHILDREN).await;
    let all: Vec<&Sandbox> = std::iter::once(&origin).chain(&children).collect();
    assert_eq!(distinct(all.iter().map(|one| one.id.clone())), CHILDREN + 1);

    // What it was is what they are: the boot, the process and its memory, the files.
    let counts = join_all(all.iter().map(|one| one.get(&gateway, "/count"))).await;
    for count in counts {
        assert_eq!(
            count.ok().value::<u64>("hits"),
            hits + 1,
            "each counts for itself"
        );
    }
    let identities = join_all(all.iter().map(|one| one.get(&gateway, "/identity"))).await;
    for (sandbox, identity) in all.iter().zip(&identities) {
        assert_eq!(
            identity.value::<String>("boot"),
            before.value::<String>("boot")
        );
        assert_eq!(identity.value::<u64>("pid"), before.value::<u64>("pid"));
        assert_eq!(
            identity.value::<String>("hostname"),
            sandbox.id,
            "it is called what it is"
        );
    }
    // Who it is, and what it draws, is its own.
    for own in ["hostname", "machine", "urandom", "getrandom"] {
        let values = identities
            .iter()
            .map(|identity| identity.value::<String>(own));
        assert_eq!(distinct(values), CHILDREN + 1, "{own}");
    }
    assert_eq!(
        identities[0].value::<String>("machine"),
        before.value::<String>("machine")
    );
    let drawn = ["urandom", "getrandom"].map(|name| {
        identities
            .iter()
            .map(move |identity| identity.value::<String>(name))
    });
    assert_eq!(distinct(drawn.into_iter().flatten()), 2 * (CHILDREN + 1));

    nobody_sees_what_another_writes(&gateway, &origin, &children).await;
    gateway.finish().await;
}

/// Each child writes the file that all share from their origin.
async fn nobody_sees_what_another_writes(
    gateway: &Gateway,
    origin: &Sandbox,
    children: &[Sandbox],
) {
    join_all(
        children
            .iter()
            .map(|child| child.write(gateway, "/home/user/file", format!("of {}\n", child.id))),
    )
    .await;
    assert_eq!(
        origin.read(gateway, "/home/user/file").await.ok().body,
        "of the origin\n"
    );
    for child in children {
        let file = child.read(gateway, "/home/user/file").await.ok().body;
        assert_eq!(file, format!("of {}\n", child.id));
    }
}

#[tokio::test]
async fn a_fork_does_not_let_its_origin_s_token_in() {
    let Some(gateway) = Gateway::start().await else {
        return;
    };
    let origin = gateway.create(json!({})).await;
    let child = origin.fork(&gateway, 1).await.remove(0);
    assert_eq!(
        child.read(&gateway, "/etc/hostname").await.ok().body,
        format!("{}\n", child.id)
    );
    let stranger = child.with_token_of(&origin);
    let refused = stranger.read(&gateway, "/etc/hostname").await;
    assert_eq!(refused.status, 401, "{}", refused.body);
    gateway.finish().await;
}

fn distinct(values: impl Iterator<Item = String>) -> usize {
    values.collect::<BTreeSet<_>>().len()
}
